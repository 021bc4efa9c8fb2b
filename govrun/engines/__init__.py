"""Small programs that govrun starts as children."""
