"""One file a scheduler behind one protocol. No other module names a scheduler."""
