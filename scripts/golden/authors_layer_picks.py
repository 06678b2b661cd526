"""Entries that authors' own code keeps of the layer of layer_picks.py, for methods that kvpress does not have.

  .deps/golden/bin/python scripts/golden/authors_layer_picks.py DEFENSIVEKV TRIATTENTION GRKV > harness/testing/golden/authors_layer_picks.json

DEFENSIVEKV: a checkout of github.com/FFY0/DefensiveKV (made with kvpress/presses/efficient_defensivekv_press.py of
c278cd0e2e82b9889513ba19d20ee72652f23ad0). Its window is put behind the entries, which then are all scored.
TRIATTENTION: a checkout of github.com/WeianMao/triattention (made with triattention/methods/pruning_utils.py of
092e4dcaa9d42d7093b6f7092ef9bf6c675cf0a7). Its means are those of the layer's own queries, one at every position.
GRKV: a checkout of github.com/pjunjie/GRKV (made with grkv/solver.py and operators.py of 04a9e39754e1c04dd16ab441291efdf67cdf59a1), whose
fit_default() gets one head at a time, in float64, with the entries that kvpress's CURPress keeps; `refit` says what it moves them to. Caps
are out of reach: at a cap the code shortens once more or not as the last bit of a norm falls.
"""
import dataclasses
import importlib.util
import json
import math
import pathlib
import sys
import types


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


layer_picks = load("layer_picks", pathlib.Path(__file__).parent / "layer_picks.py")  # takes this folder off the path
import torch  # noqa: E402

WINDOW = 32


def authors_press(checkout):
    base = type("EfficientAdaScorerPress", (), {"compression_ratio": 0.0})
    for name, classes in {"efficient_ada_scorer_press": {"EfficientAdaScorerPress": base},
                          "efficient_ada_global_scorer_press": {"EfficientAdaGlobalScorerPress": base}}.items():
        module = types.ModuleType("kvpress.presses." + name)
        vars(module).update(classes)
        sys.modules[module.__name__] = module
    return load("defensive", checkout + "/kvpress/presses/efficient_defensivekv_press.py").EfficientDefensiveKVPress


def defensive_kv(layer, press_class, t):
    press = press_class()
    press.compression_ratio = 1 - (t + WINDOW + 0.5) / layer.length  # the first entries are at most t
    weights = torch.softmax(layer.q[:, :, -WINDOW:] @ layer.k.transpose(2, 3) / math.sqrt(layer_picks.D), -1)
    press.compute_window_attention = lambda *a: (weights, weights[..., -WINDOW:].sum(-1).mean().item())
    filler = torch.ones(1, 3, WINDOW, layer_picks.D)
    n = layer.length + WINDOW
    metadata = types.SimpleNamespace(head_lens=[n] * 3, bsz=1, num_key_value_heads=3)
    scores = press.score(layer.module, None, torch.cat([layer.k, filler], 2), torch.cat([layer.v, filler], 2), None,
                         {"metadata": metadata, "position_embeddings": None})
    return layer_picks.best(scores.view(1, 3, n)[..., :layer.length], t)


def tri_attention(layer, code, t, max_offset):
    positions = torch.arange(layer.length)
    omega, ones = layer_picks.inverse_frequencies().float(), torch.ones(layer_picks.D // 2)
    scores = []
    for keys, queries in zip(layer.k[0], layer.q[0, :, :layer.length]):
        pairs = code.to_complex_pairs(layer_picks.turned(queries, -positions))
        amp, phi, extra = code.compute_frequency_statistics_from_means(
            pairs.mean(0), pairs.abs().mean(0), layer_picks.turned(keys, -positions))
        scores.append(code.score_keys_for_round_reference(positions, layer.length, amp, phi, omega, extra,
                                                          code.build_geometric_offsets(max_offset, "cpu"), "mean", ones))
    return layer_picks.best(torch.stack(scores)[None], t)


def grkv(layer, t, guard, config):
    """The picks, and for every head how far values and keys move and some of the moved numbers."""
    from grkv.cache import Block
    from grkv.operators import AttentionMap, Observations
    from grkv.solver import fit_default

    every = layer_picks.kvpress.CURPress(num_sinks=0).score(None, None, layer.k, layer.v, None, None)
    indices, refits, n = layer_picks.best(every, t), [], layer.length
    edges = torch.arange(33) * n // 32
    sources = (edges[:-1] + edges[1:] - 1) // 2
    for h, kept in enumerate(indices):
        queries = layer_picks.turned(layer.q[0, h, sources], n - 1 - sources)[None, None]
        obs = Observations(queries.double(), torch.full_like(sources, n - 1), torch.empty(32, layer_picks.D),
                           torch.full((1, 1, 32), -torch.inf).double(), torch.zeros(1, 1, 32, layer_picks.D).double(),
                           torch.full((32,), 6 / 32).double())
        whole, k, v = torch.arange(n)[None], layer.k[:, h:h + 1], layer.v[:, h:h + 1]
        no = torch.zeros_like(whole, dtype=torch.bool)
        obs.target = AttentionMap(obs, whole, ~no, no).state(k[0].double(), v[0].double())[0]
        moves = torch.ones(t, dtype=torch.bool)
        moves[torch.sort(every[0, h, kept], stable=True, descending=True).indices[:int(t * guard)]] = False
        anchor = Block(k[:, :, kept], v[:, :, kept], torch.tensor(kept)[None, None], torch.ones(1, 1, t, dtype=torch.bool), moves[None, None])
        made, record = fit_default(anchor, obs, None, config)
        some = [0, t // 2, t - 1]
        refits.append({"selected": record["rounds"][0]["selected"],
                       "value_change": float((made.value - anchor.value).double().norm()),
                       "key_change": float((made.key - anchor.key).double().norm()),
                       "values": made.value[0, 0, some, :4].tolist(), "keys": made.key[0, 0, some, :4].tolist()})
    return indices, refits


@dataclasses.dataclass
class FitConfig:
    """GRKV's defaults but for the caps, in float64."""
    ridge: float = 0.01
    relative_cap: float = 10
    key_relative_cap: float = 10
    max_iterations: int = 16
    tolerance: float = 1e-6
    precision: str = "float64"


def main():
    sys.path.insert(0, sys.argv[3])
    code = load("tri_attention", sys.argv[2] + "/triattention/methods/pruning_utils.py")
    layer, press_class, cases = layer_picks.Layer(), authors_press(sys.argv[1]), []
    for kept in layer_picks.RATIOS:
        t = int(layer.length * kept + 1e-9)
        indices = defensive_kv(layer, press_class, t)
        cases.append({"method": "defensive_kv", "options": {"softmax_over": "article"}, "sizes": [t] * 3,
                      "queries": layer.q.shape[2], "indices": indices})
        for max_offset in [65536, 1024]:
            cases.append({"method": "tri_attention", "options": {"max_offset": max_offset}, "sizes": [t] * 3, "queries": layer.length,
                          "indices": tri_attention(layer, code, t, max_offset)})
        for guard in [0.1, 0]:
            indices, refit = grkv(layer, t, guard, FitConfig())
            cases.append({"method": "grkv", "options": {"scores": {"method": "curdkv", "n_sink": 0}, "guard": guard, "value_cap": 10, "key_cap": 10}, "sizes": [t] * 3,
                          "queries": layer.length, "indices": indices, "refit": refit})
    text = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    print('{"made_by": "scripts/golden/authors_layer_picks.py", "versions": {"torch": "%s"}, "cases": [\n%s\n]}' %
          (torch.__version__, text))


if __name__ == "__main__":
    main()
