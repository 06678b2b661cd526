"""Entries that authors' own code keeps of the layer of layer_picks.py, for methods that kvpress does not have.

  .deps/golden/bin/python scripts/golden/authors_layer_picks.py DEFENSIVEKV TRIATTENTION > harness/testing/golden/authors_layer_picks.json

DEFENSIVEKV: a checkout of github.com/FFY0/DefensiveKV (made with kvpress/presses/efficient_defensivekv_press.py of
c278cd0e2e82b9889513ba19d20ee72652f23ad0). Its window is put behind the entries, which then are all scored.
TRIATTENTION: a checkout of github.com/WeianMao/triattention (made with triattention/methods/pruning_utils.py of
092e4dcaa9d42d7093b6f7092ef9bf6c675cf0a7). Its means are those of the layer's own queries, one at every position.
"""
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


def main():
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
    text = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    print('{"made_by": "scripts/golden/authors_layer_picks.py", "versions": {"torch": "%s"}, "cases": [\n%s\n]}' %
          (torch.__version__, text))


if __name__ == "__main__":
    main()
