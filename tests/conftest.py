"""For every test: one thread. Tiny tensors gain nothing from more, and threads that wait for each other crawl on a busy
machine."""

import torch

torch.set_num_threads(1)
