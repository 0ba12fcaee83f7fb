"The old address of `brainllm.evaluate.comparison`, for `python -m brainllm.compare`. Written by hand: no notebook exports it."

import runpy

if __name__ == '__main__': runpy.run_module('brainllm.evaluate.comparison', run_name='__main__', alter_sys=True)
