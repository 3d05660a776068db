"""What comes in: dataset cards and their readers, a user's own images, the drawn scenes."""
