"""The maths of the joint flow: pure torch, no files, no pixels, no ComfyUI.

Letters used in every shape comment of this package:
    N  requests (clips x CFG branches)     M  streams of the family       S  streams present in a request
    L  tokens of one stream                T  tokens of one request = S*L D  width, H heads, d = D/H
    C  latent channels                     F, Y, X  latent frames, rows, columns;  f, h, w the same in tokens
    r  adapter rank                        E  width of the text embedding
"""
