"""The bundled drawn scenes."""
