"""Remote sources in local mode: store of this user, pulls in the background, their progress on the terminal."""
