"""The light of a shot: how well albedo and irradiance make the plate, and new lights on its surfaces."""
