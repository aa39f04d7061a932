"""The second host: files to files through the joint engine, with no ComfyUI about. What the command line calls."""
