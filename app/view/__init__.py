"""The viewer: look at, train, compare, edit and mesh a scene in the browser."""
