"""Files in, files out: captures become a Scene, Gaussians and meshes become files."""
