"""The viewer: a page in the browser to train, look, compare, edit and mesh; built on viser."""
