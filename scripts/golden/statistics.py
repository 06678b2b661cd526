#!/usr/bin/env python3
"""Makes harness/testing/golden/statistics.json: tests and ratio intervals of scipy and statsmodels for harness/report.

    python scripts/golden/statistics.py > harness/testing/golden/statistics.json
"""
import sys

sys.path = sys.path[1:]  # this file's name is that of a standard module
import json
import math
import random

import numpy
import scipy
import scipy.integrate
import scipy.optimize
import scipy.stats
import statsmodels
import statsmodels.api as sm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests


def clustered_fit(values, groups):
    return sm.OLS(values, numpy.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)


def fieller(name, clusters):
    """The ratios r at which statsmodels' clustered t test of mean(a - r b) = 0 turns from not rejecting to rejecting."""
    a = numpy.array([q[0] for c in clusters for q in c])
    b = numpy.array([q[1] for c in clusters for q in c])
    groups = [g for g, c in enumerate(clusters) for _ in c]
    limit = scipy.stats.t.ppf(0.975, len(clusters) - 1)
    excess = lambda r: abs(clustered_fit(a - r * b, groups).tvalues[0]) - limit
    value = float(a.sum() / b.sum())
    unbounded = bool(abs(clustered_fit(b, groups).tvalues[0]) <= limit)  # the test of a ratio that is infinite
    low = high = None
    if not unbounded:
        step = 1.0
        while excess(value - step) < 0:
            step *= 2
        low = float(scipy.optimize.brentq(excess, value - step, value, xtol=1e-14))
        step = 1.0
        while excess(value + step) < 0:
            step *= 2
        high = float(scipy.optimize.brentq(excess, value, value + step, xtol=1e-14))
    return {"name": name, "clusters": clusters, "value": value, "unbounded": unbounded, "low": low, "high": high}


def t_test(name, clusters):
    values = [v for c in clusters for v in c]
    groups = [g for g, c in enumerate(clusters) for _ in c]
    fit = clustered_fit(values, groups)
    mean, error, df = float(fit.params[0]), float(fit.bse[0]), len(clusters) - 1
    margin = 0.5
    below = scipy.stats.t.cdf((mean - margin) / error, df)  # of "the mean is margin or more", and of "-margin or less"
    above = scipy.stats.t.sf((mean + margin) / error, df)
    return {"name": name, "clusters": clusters, "p_documents": float(fit.pvalues[0]), "n": len(values),
            "margin": margin, "p_equivalence": float(max(below, above)), "detectable": detectable(df) * error}


def t_power(effect, df, level):
    bound = scipy.stats.t.ppf(1 - level / 2, df)
    return float(scipy.stats.nct.sf(bound, df, effect) + scipy.stats.nct.cdf(-bound, df, effect))


def detectable(df, level=0.05):
    """Standard errors that a two-sided t test finds with 80 % power."""
    return float(scipy.optimize.brentq(lambda d: t_power(d, df, level) - 0.8, 0.1, 6))


def log_ratio(name, first, second):
    logs = [math.log(numpy.mean(a) / numpy.mean(b)) for a, b in zip(first, second)]
    test = scipy.stats.ttest_1samp(logs, 0)
    low, high = test.confidence_interval(0.95)
    return {"name": name, "first": first, "second": second, "p": float(test.pvalue), "ratio": math.exp(numpy.mean(logs)),
            "low": math.exp(low), "high": math.exp(high), "detectable": math.exp(detectable(len(logs) - 1) * scipy.stats.sem(logs))}


def sign_flip(values):
    """scipy's permutation test with all 2^n signs."""
    result = scipy.stats.permutation_test((values,), lambda x, axis: abs(numpy.sum(x, axis=axis)), permutation_type="samples",
                                          n_resamples=numpy.inf, alternative="greater", vectorized=True)
    return [values, float(result.pvalue)]


def mcnemar_power(n, changed, difference, level):
    power = 0.0
    win = (changed + difference) / (2 * changed)
    for m in range(n + 1):
        decided = sum(scipy.stats.binom.pmf(w, m, win) for w in range(m + 1) if scipy.stats.binomtest(w, m).pvalue <= level) if m else 0
        power += scipy.stats.binom.pmf(m, n, changed) * decided
    return [n, changed, difference, level, float(power)]


def area(x, y):
    log = numpy.log(x)
    order = numpy.argsort(log)
    log, y_sorted = log[order], numpy.array(y)[order]
    return [x, y, float(scipy.integrate.trapezoid(y_sorted, log) / (log[-1] - log[0]))]


def main():
    rng = random.Random(17)
    answer = lambda p: float(rng.random() < p)

    def gains(sizes, method, floor, full):
        clusters = []
        for n in sizes:
            shift = rng.uniform(-0.2, 0.2)
            questions = []
            for _ in range(n):
                f = answer(floor + shift)
                questions.append([answer(method + shift) - f, answer(full + shift) - f])
            clusters.append(questions)
        return clusters

    def differences(sizes, scale):
        return [[rng.gauss(scale, 1) + g % 3 / 3 for _ in range(n)] for g, n in enumerate(sizes)]

    def kl(sizes, level):
        return [[rng.lognormvariate(math.log(level), 0.6) for _ in range(n)] for n in sizes]

    tables = [(0, 0), (0, 1), (1, 0), (0, 5), (0, 6), (6, 0), (1, 9), (5, 5), (4, 7), (12, 3), (20, 41), (150, 110), (3, 400), (900, 1010)]
    families = [[], [0.3], [0.01, 0.04, 0.03, 0.005], [0.5, 0.5, 0.5], [1e-9, 0.02, 1.0, 0.0249, 0.0251, 0.02],
                [rng.random() ** 3 for _ in range(40)]]
    print(json.dumps({
        "made_by": "scripts/golden/statistics.py",
        "versions": {"numpy": numpy.__version__, "scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
        "mcnemar": [[w, l, float(mcnemar([[0, w], [l, 0]], exact=True).pvalue) if w + l else 1.0,
                     float(scipy.stats.binomtest(w, w + l).pvalue) if w + l else 1.0] for w, l in tables],
        "holm": [[p, list(map(float, multipletests(p, method="holm")[1])) if p else []] for p in families],
        "benjamini_hochberg": [[p, list(map(float, multipletests(p, method="fdr_bh")[1])) if p else []] for p in families],
        "sign_flip": [sign_flip([1.0, 1.0, 1.0, -1.0, 1.0, 1.0]), sign_flip([0.3, -0.1, 0.2, 0.25, 0.4, -0.05, 0.5]),
                      sign_flip([rng.gauss(0.5, 1) for _ in range(12)])],
        "log_ratios": [log_ratio("six documents", kl([5, 9, 3, 12, 7, 7], 0.2), kl([5, 9, 3, 12, 7, 7], 0.3)),
                       log_ratio("twelve documents", kl([10] * 12, 0.1), kl([10] * 12, 0.11))],
        "t_power": [[e, df, level, t_power(e, df, level)] for e in [0.0, 1.0, 2.8, 4.5] for df in [4, 11, 60] for level in [0.05, 0.002]],
        "mcnemar_power": [mcnemar_power(*row) for row in [(60, 0.2, 0.1, 0.05), (60, 0.1, 0.1, 0.05), (24, 0.5, 0.3, 0.01), (12, 1.0, 0.6, 0.05)]],
        "fieller": [
            fieller("fourteen documents", gains([6 + i % 5 for i in range(14)], 0.6, 0.3, 0.75)),
            fieller("five unequal documents", gains([30, 9, 17, 4, 22], 0.5, 0.2, 0.9)),
            fieller("more than the full cache", gains([12] * 10, 0.8, 0.2, 0.7)),
            fieller("less than nothing", gains([12] * 10, 0.15, 0.3, 0.8)),
            fieller("a full cache hardly better than nothing", gains([5, 6, 5, 4], 0.36, 0.3, 0.4)),
        ],
        "t_tests": [t_test("six documents", differences([5, 9, 3, 12, 7, 7], 0.2)),
                    t_test("thirty documents", differences([4 + i % 7 for i in range(30)], -0.3)),
                    t_test("no difference", differences([8] * 8, -0.33))],
        "areas": [area([0.5, 0.2, 0.1, 0.05, 0.02], [0.8, 0.7, 0.6, 0.4, 0.1]), area([0.02, 0.5], [0.2, 0.6]),
                  area([0.1, 0.9, 0.3], [0.5, 0.1, 0.7])],
    }, indent=1, allow_nan=False))


if __name__ == "__main__":
    main()
