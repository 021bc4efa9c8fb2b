"""What each backend says about itself: checks, commands, and how to read output."""
