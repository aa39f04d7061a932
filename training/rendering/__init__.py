"""The parts of the renderer behind `scenes.render`: what is in a scene, how it moves, and what a ray meets."""
