"""The bundled model for photographs: its vocabulary, its teacher, its pictures and its training."""
