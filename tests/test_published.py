"""The presets of the paper with files in the published layouts, in a small size, through every room.

Events, SC-MBM, Video-LLaMA, Vicuna's prompt, table. Weights are random; the brains are simulated."""

import json, shutil
from dataclasses import replace
import pytest, torch
from safetensors.torch import load_file, save_file
from brainllm.evaluate.methods import METHODS, write_controls
from brainllm.core import DataError, PartMissing, PresetError, read_jsonl, WallError, write_jsonl
from brainllm.presets import PRESETS, get_preset
from brainllm.losses import l2l1_loss
from brainllm.models.encoder import MaskedBrainModel, TemporalBlock, VoxelEncoder
from brainllm.decoder import BrainLLM
from brainllm.stages.experiment import open_experiment
from brainllm.stages.card import assemble
from brainllm.stages.stage1 import new_stage1
from brainllm.stages.stage2 import draw_questions
from brainllm.stages.teacher import answer_trials
from brainllm.video.published import answer_clip
from brainllm.video.checkpoints import published_video_llama
from brainllm.video.teachers import VideoLLaMATeacher
from brainllm.video.clips import read_clip
from brainllm.video.answers import answer_files, find_clips
from test_measured import bare
from test_teachers import QFORMER, VISION, checkpoint, load
from test_teachers import files  # noqa: F401  a fixture: pytest finds it here by its name
from brainllm.evaluate.pipeline import evaluate_experiment, reproduce

TINY = PRESETS['tiny']


@pytest.fixture(scope='module')
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp('had')
    return bare(open_experiment('tiny', out=out).study.root, out / 'ds004488')


@pytest.fixture(scope='module')
def weights(tmp_path_factory, files):  # noqa: F811  pytest hands the fixture over
    root = tmp_path_factory.mktemp('weights')
    d, llm, (eva, blip2, own) = files
    for k in ('scmbm', 'mindvideo', 'video-llama', 'blip2'):
        (root / k).mkdir()
    shutil.copytree(llm, root / 'llm')
    torch.manual_seed(5)
    model = MaskedBrainModel(160, 16, 24, 2, 2, 1.0, 16, 1, 2)
    for p in model.parameters():
        p.data.add_(torch.randn_like(p) * 0.1)
    torch.save(
        dict(model=model.state_dict(), epoch=499, config=dict(num_heads=2, decoder_num_heads=2)),
        root / 'scmbm/checkpoint.pth',
    )
    torch.save(
        VoxelEncoder(160, 16, 24, 2, 2, 1.0, 2, True, head=dict(out_tokens=1, out_dim=8, norm=False)).state_dict(),
        root / 'mindvideo/model.pth',
    )
    (root / 'mindvideo/config.json').write_text(
        json.dumps(
            dict(
                num_voxels=160,
                embed_dim=24,
                depth=2,
                num_heads=2,
                mlp_ratio=1.0,
                out_channel=1,
                out_dim=8,
                window_size=2,
                use_temp_attn=True,
            )
        )
    )
    torch.save(checkpoint(own, end_sym='###'), root / 'video-llama/finetune-vicuna7b-v2.pth')
    whole = load(files)
    save_file(
        {
            k: v.contiguous()
            for k, v in whole.state_dict().items()
            if k.startswith(('vision_model.', 'qformer.', 'query_tokens'))
        },
        root / 'blip2/model.safetensors',
    )
    (root / 'blip2/config.json').write_text(
        json.dumps(
            dict(
                text_config=dict(model_type='t5', d_model=4096),
                vision_config=VISION.to_dict(),
                qformer_config=QFORMER.to_dict(),
            )
        )
    )
    return root


def paper(study, weights, **changes):  # preset had, with the widths of the small files and the lengths of 'tiny'
    p = get_preset(
        'had',
        video__image_size=28,
        video__n_frames=2,
        video__n_query=4,
        video__dim=24,
        video__max_new_tokens=8,
        brain__dim=24,
        brain__depth=2,
        brain__heads=2,
        brain__patch=4,
        brain__rank=4,
        brain__readout=8,
        study__root=str(study),
        study__source='volume',
        study__voxel_mm=0,
        study__targets=('04',),
        device='cpu',
        dtype='float32',
        weights=str(weights),
    )
    return replace(
        p, stage1=replace(TINY.stage1, beta=p.stage1.beta), stage2=TINY.stage2, evaluate=TINY.evaluate, **changes
    )


@pytest.fixture(scope='module')
def done(study, weights, tmp_path_factory):
    out = tmp_path_factory.mktemp('runs')
    result, lines = reproduce(paper(study, weights), out=out)
    return open_experiment(paper(study, weights), out=out), result, lines


def test_from_events_to_the_table(done, weights):
    run, result, lines = done
    assert (
        result['simulated']
        and result['row_order'] == ['brain', 'no_brain', 'shuffled', 'ridge', 'video']
        and {l['subject'] for l in lines} == {'04'}
    )
    assert result['settings']['weights'] == weights.name and str(weights) not in json.dumps(result), (
        'a result must not name folders of one machine'
    )
    again, _ = reproduce(run.preset, out=run.folder.parent)
    assert again['rows'] == result['rows']


def test_every_control_that_a_measured_study_can_have(done):
    run, _, lines = done
    rows = write_controls(run.preset, out=run.folder.parent)
    assert [k for k in rows[0] if k in METHODS] == [n for n in METHODS if n != 'ideal'] and len(rows) == len(lines)
    for name, other in dict(
        brain='brain', no_brain='no_brain', shuffled_run='shuffled', ridge='ridge', video='video'
    ).items():
        assert [r[name] for r in rows] == [l[other] for l in lines], name


def test_the_encoder_is_the_published_one(done, weights):
    run, *_ = done
    _, encoder = run.pretrained
    held = torch.load(weights / 'scmbm/checkpoint.pth', weights_only=True)['model']
    for k, v in encoder.state_dict().items():
        assert torch.equal(v, held[k]), k
    stage1 = run.stage1
    assert torch.equal(stage1.encoder.blocks[1].attn.qkv.base_layer.weight, held['blocks.1.attn.qkv.weight']), (
        'Stage I leaves it frozen'
    )


def test_video_tokens_and_answers_are_the_published_models(done, weights):
    run, *_ = done
    video, whole = run.video, published_video_llama(weights, 'float32')
    train = run.study.split.train[:3]
    kept = video(run.study.clip_features(train)[:])
    seen = torch.cat([whole.encode(read_clip(run.study.dataset.clip_path(t), 2, 28)[0]) for t in train])
    assert (kept - seen).abs().max() < 2e-2 * seen.std(), 'kept ViT tokens are in half precision'
    rows = read_jsonl(run.answers / 'answers.jsonl')
    assert len(rows) == len(run.study.split.train)
    exact = [
        answer_clip(
            whole,
            str(run.study.dataset.clip_path(t)),
            [q],
            n_frames=2,
            how=replace(VideoLLaMATeacher(whole, {}, 2).how, max_new_tokens=8),
        )[0]
        for t, q in zip(train, [r['question'] for r in rows[:3]], strict=True)
    ]
    asked = answer_trials(run.study, run.models, video, train, [r['question'] for r in rows[:3]])
    assert asked == [r['answer'] for r in rows[:3]], (asked, exact)
    assert sum(a == b for a, b in zip(asked, exact, strict=True)) >= 2, (asked, exact)


def test_what_stage1_trains(done):
    run, *_ = done
    model = new_stage1(run.study, run.models, run.store, run.seed)
    parts = model.trained()
    assert set(parts) == {'tokenizer', 'brain_adaptors', 'projection', 'temperature', 'video_adaptors'}
    learned = load_file(run.stage1.folder / 'model.safetensors')
    assert any('video.qformer' in k and 'adaptor_up' in k for k in learned) and not any(
        'llama_proj' in k or 'base_layer' in k for k in learned
    )


def test_answers_made_elsewhere(done, study, weights, tmp_path):
    run, *_ = done
    teacher = VideoLLaMATeacher.load(
        **{
            k: str(p)
            for k, p in dict(
                checkpoint=weights / 'video-llama/finetune-vicuna7b-v2.pth',
                blip2=weights / 'blip2',
                llm=weights / 'llm',
            ).items()
        },
        dtype='float32',
        n_frames=2,
        max_new_tokens=8,
    )
    questions = [(None, q) for q in sorted(set(draw_questions(200, 0)) | {run.preset.evaluate.question})]
    answer_files(teacher, find_clips(study / 'stimuli'), questions, tmp_path / 'all.jsonl')
    rows = read_jsonl(tmp_path / 'all.jsonl')
    made, names = paper(study, weights), {r['clip'] for r in rows}
    train = {t.clip for t in run.study.split.train}
    assert train <= names
    write_jsonl(tmp_path / 'train.jsonl', [r for r in rows if r['clip'] in train])  # nothing about a target's clip
    there = open_experiment(replace(made, answers=str(tmp_path / 'train.jsonl')), out=tmp_path / 'runs')
    there.stage2
    said = {(r['clip'], r['question']): r['answer'] for r in rows}
    assert all(
        r['answer'] == said[r['clip'], r['question']] and r['file'][0] == 'train.jsonl'
        for r in read_jsonl(there.answers / 'answers.jsonl')
    )
    with pytest.raises(DataError, match='train.jsonl: no answer about'):
        evaluate_experiment(there)
    with pytest.raises(WallError):
        answer_trials(there.study, there.models, there.video, there.study.split.test[:1], ['Who?'])
    result, lines = reproduce(replace(made, answers=str(tmp_path / 'all.jsonl')), out=tmp_path / 'runs')
    assert all(l['video'] == said[l['clip'], l['question']] for l in lines)


def test_mindvideo_blocks(study, weights, tmp_path):
    run = open_experiment(
        get_preset(
            'tiny-had',
            study__root=str(study),
            study__source='volume',
            study__voxel_mm=0,
            study__targets=('04',),
            pretrain__source='mindvideo',
            brain__temporal=True,
            weights=str(weights),
        ),
        out=tmp_path,
    )
    tokenizer, encoder = run.pretrained
    held = torch.load(weights / 'mindvideo/model.pth', weights_only=True)
    assert isinstance(encoder.blocks[0], TemporalBlock) and all(
        torch.equal(v, held[k]) for k, v in encoder.state_dict().items()
    )
    again, same = run.pretrained
    bold = run.study.blocks(run.study.split.train[:2]).batch([0, 1])
    assert torch.equal(encoder(tokenizer(bold)), same(again(bold)))


@pytest.mark.parametrize(
    'changes,error,words',
    [
        (dict(weights=''), PartMissing, 'weights: found no folder.*scmbm/.*video-llama/.*-p weights FOLDER'),
        (dict(brain__depth=3), PresetError, 'set brain.dim, depth, heads'),
        (dict(brain__heads=4), PresetError, "'heads': 2"),
        (dict(brain__mlp_ratio=4.0), PresetError, "'hidden': 24"),
        (dict(video__n_query=32), PresetError, 'the checkpoint has 4 query tokens of 24, the preset 32 of 24'),
        (dict(video__kind='large'), PresetError, "found 'large'"),
    ],
)
def test_what_does_not_fit_is_refused(study, weights, tmp_path, changes, error, words):
    base = paper(study, weights)
    for k, v in changes.items():
        room, _, leaf = k.rpartition('__')
        base = replace(base, **({room: replace(getattr(base, room), **{leaf: v})} if room else {leaf: v}))
    run = open_experiment(base, out=tmp_path)
    with pytest.raises(error, match=words):
        run.video if 'video' in words or 'checkpoint' in words or 'large' in words else run.pretrained


def test_missing_kinds_are_named(weights, tmp_path):
    shutil.copytree(weights, tmp_path / 'w')
    (tmp_path / 'w/video-llama/second.pth').write_bytes(b'')
    with pytest.raises(PartMissing, match='found 2 files.*wanted one .pth'):
        published_video_llama(tmp_path / 'w')
    (tmp_path / 'w/video-llama/second.pth').unlink()
    shutil.rmtree(tmp_path / 'w/llm')
    with pytest.raises(PartMissing, match='llm: found nothing, wanted the LLaMA'):
        published_video_llama(tmp_path / 'w')
    (tmp_path / 'w/blip2/config.json').unlink()
    shutil.copytree(weights / 'llm', tmp_path / 'w/llm')
    with pytest.raises(
        PartMissing, match='blip2_pretrained_flant5xxl.pth: found nothing, wanted the files of Salesforce'
    ):
        published_video_llama(tmp_path / 'w')


def test_steps_follow_the_device_of_the_models(
    done,
):  # no accelerator is here: the meta device stands in for one, and refuses tensors that stayed behind
    run, *_ = done
    model, v = new_stage1(run.study, run.models, run.store, run.seed).to('meta'), run.preset.video
    bold = run.study.blocks(run.study.split.train[:2]).batch([0, 1])
    features = run.study.clip_features(run.study.split.train[:2])[:]
    x = torch.zeros(2, v.n_query, v.dim)
    z = model.brain(bold.to('meta'))
    seen = model.video(features.to('meta'))
    assert z.device.type == seen.device.type == 'meta' and z.shape == seen.shape == x.shape
    loss = l2l1_loss(z, x.to('meta'), 0.5) + l2l1_loss(seen, x.to('meta'), 0.5)
    loss.backward()
    assert loss.is_meta and all(p.grad.is_meta for n, ps in model.trained().items() if n != 'temperature' for p in ps)
    with pytest.raises(RuntimeError):
        model.brain(bold)


def test_the_decoder_travels(done, weights, tmp_path):
    run, *_ = done
    model = assemble(run)
    bold = run.study.blocks(run.study.split.test[:3]).batch([0, 1, 2])
    terms = dict(licence='apache-2.0', licences=dict(llm='for research'))
    whole, part = (model.save_pretrained(tmp_path / n, terms, trained_only=n == 'part') for n in ('whole', 'part'))
    said = model.decode(bold, 'Who?')
    assert BrainLLM.from_pretrained(whole).decode(bold, 'Who?') == said
    assert BrainLLM.from_pretrained(part, llm=weights / 'llm', encoder=weights / 'scmbm').decode(bold, 'Who?') == said
    card = (part / 'README.md').read_text()
    assert (
        'the published Video-LLaMA (finetune-vicuna7b-v2.pth)' in card
        and 'SC-MBM, published by MinD-Vis' in card
        and str(weights) not in card
    )
    config = json.loads((part / 'config.json').read_text())
    assert config['llm']['prompt'] == 'vicuna'
    with pytest.raises(DataError, match='another|other'):
        BrainLLM.from_pretrained(part, llm=weights / 'llm', encoder=MaskedBrainModel(160, 16, 24, 2, 2, 1.0, 16, 1, 2))
