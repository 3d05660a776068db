"""From scores of classes to a label map, whatever the method."""
