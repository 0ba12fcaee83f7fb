"`python -m brainllm.evaluate`, as it was before this wing had rooms. Written by hand: no notebook exports it."

import runpy

runpy.run_module('brainllm.evaluate.pipeline', run_name='__main__', alter_sys=True)
