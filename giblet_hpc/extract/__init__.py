"""From files to arrays, TR by TR: video, audio, text, BOLD."""
