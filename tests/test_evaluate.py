"Evaluation against the reference libraries called directly, and at the size of a real study."

import time
import numpy as np, pytest
from brainllm import evaluate
from brainllm.core import DataError
from brainllm.evaluate.scores import embed_text, score_text, text_encoder
from brainllm.evaluate.identify import identification, identification_items
from brainllm.evaluate.intervals import permutation_p

WORDS = (
    "a the man woman dog child runs jumps dances cooks in on with park stage kitchen red white ball slowly , .".split()
)


def sentences(n, seed):
    rng = np.random.default_rng(seed)
    return [' '.join(rng.choice(WORDS, rng.integers(1, 25))) for _ in range(n)]


@pytest.fixture(scope='module')
def pairs():
    hyps, refs = sentences(500, 0), sentences(500, 1)
    hyps[:20] = refs[:20]
    return hyps, refs


@pytest.fixture(scope='module')
def scores(pairs):
    return score_text(*pairs)


def test_readings_are_sacrebleu(pairs):
    import sacrebleu
    from brainllm.evaluate.scores import bleu_readings

    hyps, refs = pairs
    found = bleu_readings(hyps, refs)
    for n in (1, 2):
        whole, single = (sacrebleu.metrics.BLEU(max_ngram_order=n, effective_order=e) for e in (False, True))
        corpus = whole.corpus_score(hyps, [refs])
        assert found['A'][f'bleu{n}'] == corpus.score and found['B'][f'bleu{n}'] == corpus.precisions[n - 1]
        assert found['C'][f'bleu{n}'] == pytest.approx(
            np.mean([single.sentence_score(h, [r]).score for h, r in zip(hyps, refs, strict=True)])
        )
        if n == 2:
            assert found['A']['signature'] == f'BLEU-2|{whole.get_signature()}' and found['C']['signature'] == found[
                'A'
            ]['signature'].replace('eff:no', 'eff:yes')
    assert len({round(found[k]['bleu2'], 3) for k in 'ABC'}) == 3


def test_matrices_hold_the_pairs(pairs, scores):
    "250 000 pairs each; the diagonals are the scores of the pairs."
    from brainllm.evaluate.scores import bleu_matrix, rouge_matrix

    for n in (1, 2):
        assert bleu_matrix(*pairs, n).diagonal() == pytest.approx(scores[f'bleu{n}']['items'], abs=1e-9)
    for k, name in enumerate('prf'):
        assert rouge_matrix(*pairs)[..., k].diagonal() == pytest.approx(scores[f'rougeL_{name}']['items'], abs=1e-9)


def test_names_that_moved_are_the_same_here():
    import brainllm.evaluate.scores, brainllm.statistics

    for name in (
        'check_pairs',
        'bleu',
        'rouge_l',
        'text_encoder',
        'word_vectors',
        'bertscore',
        'score_text',
        'score_signature',
        'embed_text',
        'text_similarity',
    ):
        assert getattr(evaluate, name) is getattr(brainllm.evaluate.scores, name)
    for name in (
        'win_probability',
        'identification_items',
        'identification',
        'pair_ranks',
        'permutation_null',
        'permutation_p',
        'by_subject',
        'score_subjects',
        'identify_subjects',
        'score_rows',
        'normalised',
    ):
        assert getattr(evaluate, name) is getattr(brainllm.statistics, name)


@pytest.mark.parametrize('n', [1, 2])
def test_bleu_is_sacrebleu(pairs, scores, n):
    import sacrebleu

    hyps, refs = pairs
    corpus = sacrebleu.corpus_bleu(hyps, [refs], force=True)
    pooled = corpus.bp * np.exp(np.mean(np.log(corpus.precisions[:n])))  # the formula, from sacrebleu's own counts
    assert scores[f'bleu{n}']['mean'] == pytest.approx(pooled, abs=1e-9)
    metric = sacrebleu.metrics.BLEU(max_ngram_order=n, effective_order=True)
    each = [metric.sentence_score(h, [r]).score for h, r in zip(hyps, refs, strict=True)]
    assert scores[f'bleu{n}']['items'] == each


def test_rouge_is_rouge_score(pairs, scores):
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(['rougeL'])
    direct = [scorer.score(r, h)['rougeL'] for h, r in zip(*pairs, strict=True)]
    for key, name in dict(p='precision', r='recall', f='fmeasure').items():
        items = [100 * getattr(d, name) for d in direct]
        assert scores[f'rougeL_{key}']['items'] == pytest.approx(items, abs=1e-9)
        assert scores[f'rougeL_{key}']['mean'] == pytest.approx(np.mean(items), abs=1e-9)


def test_bertscore_is_bert_score(pairs, scores):
    import bert_score

    direct = bert_score.BERTScorer(model_type=str(text_encoder().folder), num_layers=6, device='cpu').score(
        *pairs, batch_size=1
    )
    for key, items in zip('prf', direct, strict=True):
        assert scores[f'bertscore_{key}']['items'] == pytest.approx((100 * items).tolist(), abs=2e-3)


def test_embeddings_are_mean_pooled():
    import torch
    from transformers import AutoModel, AutoTokenizer

    path, texts = str(text_encoder().folder), sentences(20, 2)
    batch = AutoTokenizer.from_pretrained(path)(texts, padding=True, return_tensors='pt')
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(path)(**batch).last_hidden_state
    mask = batch['attention_mask'][..., None]
    mean = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
    assert embed_text(texts) == pytest.approx(mean, abs=1e-5)


def test_scores_do_not_depend_on_the_order_of_pairs(pairs, scores):
    order = np.random.default_rng(3).permutation(500)
    again = score_text(*[[texts[i] for i in order] for texts in pairs])
    for k, v in scores.items():
        assert again[k]['mean'] == pytest.approx(v['mean'], abs=1e-4)
        assert again[k]['items'] == pytest.approx([v['items'][i] for i in order], abs=2e-3)


def test_same_texts_same_digits(pairs, scores):
    from brainllm.evaluate.scores import _prf

    _prf.cache_clear()
    assert score_text(*pairs) == scores


@pytest.mark.parametrize(
    'hyps, refs',
    [
        ([''], ['']),
        ([''], ['a dog']),
        (['a dog'], ['']),
        ([' \n'], ['a dog']),
        (['...'], ['a dog']),
        (['\u200b'], ['a dog']),
    ],
)
def test_blank_texts_score_nothing(hyps, refs):
    scores = score_text(hyps, refs)
    for k in ('bleu1', 'bleu2', 'rougeL_p', 'rougeL_r', 'rougeL_f'):
        assert scores[k] == dict(mean=0, items=[0])
    assert all(np.isfinite(v['mean']) for v in scores.values())
    if not hyps[0].strip() or not refs[0].strip():
        assert scores['bertscore_f']['mean'] == 0


def test_a_very_long_text_is_cut_for_the_encoder_only():
    long = 'a man is running in the park . ' * 2000
    short = 'a man is running in the park .'
    scores = score_text([long, short], [short, long])
    assert 0 < scores['bertscore_f']['items'][0] < 100 and scores['rougeL_p']['items'][1] == 100
    assert embed_text([long]).shape == (1, 384)


@pytest.mark.parametrize('n_way, top_k', [(2, 1), (5, 1), (5, 2), (12, 3)])
def test_identification_counts_every_pool(n_way, top_k):
    from itertools import combinations

    rng = np.random.default_rng(n_way)
    sim = (rng.normal(size=(12, 12)) + np.eye(12)).round(0)  # many ties

    def brute(i):
        wins = []
        for pool in combinations([j for j in range(12) if j != i], n_way - 1):
            better = (sim[i, list(pool)] > sim[i, i]).sum()
            ties = (sim[i, list(pool)] == sim[i, i]).sum()
            wins.append(np.mean([better + t < top_k for t in range(ties + 1)]))  # every place that the ties leave open
        return np.mean(wins)

    assert identification_items(sim, n_way, top_k) == pytest.approx([brute(i) for i in range(12)])


def test_identification_is_blind_to_monotone_scale_and_to_order():
    rng = np.random.default_rng(0)
    sim, order = rng.normal(size=(40, 40)) + np.eye(40), rng.permutation(40)
    for way in (2, 10):
        found = identification(sim, way)
        assert identification(np.exp(sim), way) == found
        assert identification(sim[np.ix_(order, order)], way) == pytest.approx(found)
        assert identification(-sim, 2) == pytest.approx(1 - identification(sim, 2))


@pytest.mark.parametrize(
    'sim, n_way',
    [
        (np.zeros((3, 4)), 2),
        (np.full((3, 3), np.nan), 2),
        (np.eye(3), 4),
        (np.eye(3), 1),
        (np.zeros(3), 2),
        (np.zeros((0, 0)), 2),
    ],
)
def test_what_cannot_be_identified_is_refused(sim, n_way):
    with pytest.raises(DataError):
        identification(sim, n_way)


def test_a_study_of_720_trials_takes_seconds():
    rng = np.random.default_rng(0)
    sim = rng.normal(size=(720, 720)) + 0.3 * np.eye(720)
    blocks = np.repeat(range(12), 60)
    start = time.perf_counter()
    p = permutation_p(sim, blocks, n=9999)
    ten_way = identification(sim, 10)
    assert time.perf_counter() - start < 20
    assert p == 1 / 10_000 and 0.1 < ten_way < 0.3


def test_permutation_p_is_uniform_under_the_null():
    "400 studies of 30 trials in 3 blocks: false positives at 0.05 lie in 0.03 to 0.07."
    rng, blocks = np.random.default_rng(1), np.repeat(range(3), 10)
    p = np.array([permutation_p(rng.normal(size=(30, 30)), blocks, n=999, seed=k) for k in range(400)])
    assert 0.03 <= (p <= 0.05).mean() <= 0.07
    assert abs(p.mean() - 0.5) < 0.05


def test_blocks_keep_what_is_common_to_a_run():
    "Texts that know the run and nothing else are significant without blocks, and not with them."
    rng, runs = np.random.default_rng(2), np.repeat(range(4), 10)
    sim = rng.normal(size=(40, 40)) + 2 * (runs[:, None] == runs)
    assert permutation_p(sim, np.zeros(40)) < 0.01 < permutation_p(sim, runs)


def test_same_seed_same_p():
    sim = np.random.default_rng(4).normal(size=(30, 30))
    p = [permutation_p(sim, [0] * 30, n=999, seed=s) for s in (0, 0, 1)]
    assert p[0] == p[1] != p[2]
    with pytest.raises(DataError, match='29 labels for 30 rows'):
        permutation_p(sim, [0] * 29)


def test_importing_is_light():
    import subprocess, sys

    code = (
        "import sys, brainllm.evaluate; print([m for m in ('torch', 'transformers', 'bert_score', 'sacrebleu', "
        "'rouge_score', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
    )


def exact_match(hyps, refs):
    items = [100.0 * (h == r) for h, r in zip(hyps, refs, strict=True)]
    return dict(mean=sum(items) / len(items), items=items)


def half_of_it(hyps, refs):
    return dict(mean=0.0, items=[0.0] * (len(hyps) // 2))


def test_a_metric_of_ones_own_is_a_name(pairs, scores, monkeypatch):
    from brainllm.core import PresetError
    from brainllm.evaluate.scores import METRICS
    from brainllm.evaluate.statistics import score

    assert list(METRICS) == list(scores)  # nothing but the registry says what score_text gives
    found = score_text(*pairs, metrics=['rougeL_f', f'{__name__}:exact_match'])
    assert list(found) == ['rougeL_f', f'{__name__}:exact_match'] and found['rougeL_f'] == scores['rougeL_f']
    same = np.mean([h == r for h, r in zip(*pairs, strict=True)])
    assert found[f'{__name__}:exact_match']['mean'] == pytest.approx(100 * same)
    hyps, refs = (texts[:24] for texts in pairs)
    lists = dict(bertscore=False, n=99, draws=50)
    monkeypatch.setitem(METRICS, 'exact', exact_match)
    assert 'exact' in score_text(hyps[:2], refs[:2])
    rows = {r['metric']: r for r in score(hyps, refs, metrics=['bleu1', 'exact'], **lists).rows}
    every = np.array([[100.0 * (h == r) for r in refs] for h in hyps])
    matrix = {r['metric']: r for r in score(hyps, refs, metrics=['bleu1'], matrices=dict(exact=every), **lists).rows}
    assert list(rows) == ['bleu1', 'exact'] and rows == matrix
    with pytest.raises(PresetError, match="found 'exct', wanted one of .*bleu2, exact"):
        score_text(hyps, refs, metrics=['exct'])
    with pytest.raises(DataError, match='24 items'):
        score_text(hyps, refs, metrics=[f'{__name__}:half_of_it'])
    with pytest.raises(DataError, match='a mean of items'):
        score(hyps, refs, metrics=['brainllm.evaluate.scores:bleu'], **lists)
