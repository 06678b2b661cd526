#!/usr/bin/env python3
"""Makes harness/testing/golden/intervals.json: intervals and quantiles of scipy and statsmodels for harness/report/statistics.

    python scripts/golden/intervals.py > harness/testing/golden/intervals.json
"""
import itertools
import json
import math
import random

import numpy
import scipy
import scipy.stats
import statsmodels
import statsmodels.api as sm
from statsmodels.stats.proportion import proportion_confint


def splitmix64(seed):
    mask = (1 << 64) - 1
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) & mask
        z = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        yield z ^ (z >> 31)


def seeded_bootstrap(clusters, draws, seed):
    """The same draws as the program's, its percentiles by numpy."""
    stream = splitmix64(seed)
    means = []
    for _ in range(draws):
        picked = [clusters[int((next(stream) >> 11) * 2.0**-53 * len(clusters))] for _ in clusters]
        means.append(sum(map(sum, picked)) / sum(map(len, picked)))
    return [float(q) for q in numpy.percentile(means, [2.5, 97.5])]


def exhaustive_bootstrap(clusters):
    """Every one of the G^G resamples once: what a bootstrap of endless draws gives (for few clusters its percentiles lie in wide gaps)."""
    means = [sum(map(sum, picked)) / sum(map(len, picked)) for picked in itertools.product(clusters, repeat=len(clusters))]
    return [float(q) for q in numpy.percentile(means, [2.5, 97.5])]


def clustered(name, clusters, share):
    values = [v for c in clusters for v in c]
    groups = [g for g, c in enumerate(clusters) for _ in c]
    fit = sm.OLS(values, numpy.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    low, high = fit.conf_int()[0]
    n = len(values)
    if share:
        questions = proportion_confint(sum(values), n, method="wilson")
    else:
        questions = scipy.stats.t.interval(0.95, n - 1, loc=numpy.mean(values), scale=scipy.stats.sem(values))
    mean, error, g = float(fit.params[0]), float(fit.bse[0]), len(clusters)
    t = float(scipy.stats.t.ppf(0.975, g - 1))
    if g < 5:  # over questions
        error, t = float(scipy.stats.sem(values)), float(scipy.stats.t.ppf(0.975, n - 1))
    n_eff, z = n, t
    if share and g >= 5:
        n_eff = n / max(1, error**2 / (mean * (1 - mean) / n))
    elif share:
        z = float(scipy.stats.norm.ppf(0.975))
    # statsmodels takes Wilson's z as a level.
    wilson = proportion_confint(mean * n_eff, n_eff, alpha=2 * float(scipy.stats.norm.sf(z)), method="wilson") if share else None
    log = [math.exp(math.log(mean) + s * t * error / mean) for s in (-1, 1)]
    return {
        "wilson": wilson and list(map(float, wilson)), "log": log, "mean_of_documents": float(numpy.mean([numpy.mean(c) for c in clusters])),
        "name": name, "clusters": clusters, "share": share, "mean": float(fit.params[0]), "standard_error": float(fit.bse[0]),
        "low": float(low), "high": float(high), "questions": [float(q) for q in questions],
        "bootstrap_draws": 500, "bootstrap_seed": 11, "bootstrap": seeded_bootstrap(clusters, 500, 11),
        "bootstrap_exhaustive": exhaustive_bootstrap(clusters) if 5 <= len(clusters) <= 6 else None,
    }


def main():
    rng = random.Random(3)
    shares = lambda sizes: [[float(rng.random() < 0.2 + 0.6 * rng.random()) for _ in range(n)] for n in sizes]
    reals = lambda sizes: [[rng.expovariate(8) * (1 + g) for _ in range(n)] for g, n in enumerate(sizes)]
    print(json.dumps({
        "made_by": "scripts/golden/intervals.py",
        "versions": {"numpy": numpy.__version__, "scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
        "clustered": [
            clustered("two documents of QuALITY", shares([17, 10]), True),
            clustered("five unequal documents", shares([3, 17, 8, 1, 12]), True),
            clustered("forty documents", shares([5 + i % 9 for i in range(40)]), True),
            clustered("KL of three documents", reals([6, 17, 10]), False),
            clustered("KL of six documents", reals([6, 4, 9, 6, 2, 7]), False),
        ],
        "wilson": [[k, n, *map(float, proportion_confint(k, n, method="wilson"))]
                   for k, n in [(0, 1), (1, 1), (0, 10), (10, 10), (3, 10), (11, 27), (499, 500)]],
        "clopper_pearson": [[k, n, level, *map(float, proportion_confint(k, n, alpha=1 - level, method="beta"))]
                            for k, n, level in [(0, 6, 0.95), (6, 6, 0.95), (1, 6, 0.975), (3, 40, 0.95), (39, 40, 0.975), (500, 1000, 0.95)]],
        "t_quantile": [[p, df, float(scipy.stats.t.ppf(p, df))]
                       for df in [1, 2, 3, 5, 14, 49, 200, 5000] for p in [0.0005, 0.025, 0.3, 0.55, 0.9, 0.975, 0.9995]],
        "t_cdf": [[t, df, float(scipy.stats.t.cdf(t, df))]
                  for df in [1, 2, 7, 30, 1000] for t in [-40.0, -3.0, -0.5, -1e-6, 0.0, 1e-3, 0.7, 2.0, 9.0, 300.0]],
    }, indent=1, allow_nan=False))


if __name__ == "__main__":
    assert math.isclose(scipy.stats.t.ppf(0.975, 1), 12.706204736432095)
    main()
