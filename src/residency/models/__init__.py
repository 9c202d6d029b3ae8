"""Models: bases, methods, predictors."""

import logging

# peft imports bitsandbytes, which warns on a CPU that it has no kernels from the hub: none are wanted.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
