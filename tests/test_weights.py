"Packaged parts against what they came from."

import numpy as np, onnx, pytest, torch
from onnx.reference import ReferenceEvaluator
from brainllm.core import PartMissing
from brainllm.store import Store
from brainllm.weights import PARTS, find_part, load_llm, load_vit, Part, prepare


def test_dinov2_equals_its_graph(tmp_path):
    vit = load_vit(prepare('vit', 'dinov2-s', Store(tmp_path)))
    graph = onnx.load(str(find_part('dinov2-s')))
    last = [
        n.output[0] for n in graph.graph.node if n.name.startswith('/backbone/encoder/layer.11/') and n.op_type == 'Add'
    ][-1]
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(last))
    image = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)
    want = ReferenceEvaluator(graph).run([last], {'input_image': image})[0]
    found = vit(torch.tensor(image), output_hidden_states=True).hidden_states[-1].numpy()
    assert abs(want).mean() > 1 and abs(found - want).max() < 1e-4


def test_smollm2_speaks(tmp_path):
    llm, tok = load_llm(prepare('llm', 'smollm2', Store(tmp_path)))
    ids = tok('The capital of France is', return_tensors='pt').input_ids
    out = llm.generate(input_ids=ids, max_new_tokens=3, do_sample=False, pad_token_id=tok.eos_token_id)
    assert 'Paris' in tok.decode(out[0])
    assert type(llm).__name__ == 'LlamaForCausalLM' and not any(p.requires_grad for p in llm.parameters())


def test_missing_part_names_three_ways(monkeypatch):
    part = Part('no-such-package', 'x.gguf', 'nobody/nothing', 'none')
    monkeypatch.setitem(PARTS, 'ghost', part)
    with pytest.raises(PartMissing) as e:
        find_part('ghost')
    for word in ('ghost', 'brainllm parts', 'no-such-package', 'nobody/nothing', 'path'):
        assert word in str(e.value)
