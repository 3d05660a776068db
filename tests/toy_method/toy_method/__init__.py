"""A method of another package: what differs from the image's border is the class, whichever it is."""
