"""What a layer's pixels stand for: vectors, metres, motion, ids and joints as pictures, and back."""
