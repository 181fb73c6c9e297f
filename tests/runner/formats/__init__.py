"""The formats, by transcripts."""
