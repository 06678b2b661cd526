#include "harness/testing/naive_methods_eviction.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

namespace kvc {
namespace {

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  return dot(a, b) / std::sqrt(dot(a, a) * dot(b, b));
}

double bias_of(const at::Tensor& bias, size_t j) {
  return bias.defined() ? bias[static_cast<int64_t>(j)].item<double>() : 0.0;
}

// softmax(logits)
std::vector<double> softmax(std::vector<double> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double& value : logits) sum += value = std::exp(value - largest);
  for (double& value : logits) value /= sum;
  return logits;
}

NaiveRows product(const NaiveRows& a, const NaiveRows& b) {
  NaiveRows c(a.size(), std::vector<double>(b[0].size(), 0.0));
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b[0].size(); ++j) {
      for (size_t k = 0; k < b.size(); ++k) c[i][j] += a[i][k] * b[k][j];
    }
  }
  return c;
}

NaiveRows transposed(const NaiveRows& a) {
  NaiveRows b(a[0].size(), std::vector<double>(a.size()));
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < a[0].size(); ++j) b[j][i] = a[i][j];
  }
  return b;
}

// Entry i of the first half and entry i of the second turn together.
NaiveRows rotation(const std::vector<double>& frequencies, double position) {
  const size_t half = frequencies.size();
  NaiveRows r(2 * half, std::vector<double>(2 * half, 0.0));
  for (size_t i = 0; i < half; ++i) {
    const double angle = frequencies[i] * position;
    r[i][i] = r[half + i][half + i] = std::cos(angle);
    r[i][half + i] = -std::sin(angle);
    r[half + i][i] = std::sin(angle);
  }
  return r;
}

// Mean of the rotations of the positions to come.
NaiveRows mean_rotation(const NaiveExpectation& input) {
  const size_t d = 2 * input.frequencies.size();
  NaiveRows mean(d, std::vector<double>(d, 0.0));
  for (int64_t step = 0; step < input.n_future; ++step) {
    const NaiveRows r = rotation(input.frequencies, static_cast<double>(input.next_position + step));
    for (size_t a = 0; a < d; ++a) {
      for (size_t b = 0; b < d; ++b) mean[a][b] += r[a][b] / static_cast<double>(input.n_future);
    }
  }
  return mean;
}

struct Moments {
  std::vector<double> mean;
  NaiveRows covariance;
};

// Of one query head's queries, each turned back from its position.
Moments moments_before_rotation(const NaiveExpectation& input, int64_t head) {
  const NaiveRows q = naive_rows(input.queries);
  const size_t d = q[0].size(), s = q.size() / static_cast<size_t>(input.group_size);
  NaiveRows u;
  for (size_t i = static_cast<size_t>(head) * s; i < static_cast<size_t>(head + 1) * s; ++i) {
    const NaiveRows back = rotation(input.frequencies, -static_cast<double>(input.positions[i]));
    u.push_back(product({q[i]}, transposed(back))[0]);
  }
  Moments moments{std::vector<double>(d, 0.0), NaiveRows(d, std::vector<double>(d, 0.0))};
  for (const std::vector<double>& x : u) {
    for (size_t c = 0; c < d; ++c) moments.mean[c] += x[c] / static_cast<double>(s);
  }
  for (const std::vector<double>& x : u) {
    for (size_t a = 0; a < d; ++a) {
      for (size_t b = 0; b < d; ++b) {
        moments.covariance[a][b] += (x[a] - moments.mean[a]) * (x[b] - moments.mean[b]) / static_cast<double>(s);
      }
    }
  }
  return moments;
}

bool is_kept(const std::vector<int64_t>& kept, size_t i) {
  return std::find(kept.begin(), kept.end(), static_cast<int64_t>(i)) != kept.end();
}

NaiveRows chosen(const NaiveRows& rows, const std::vector<int64_t>& kept) {
  NaiveRows part;
  for (const int64_t i : kept) part.push_back(rows[static_cast<size_t>(i)]);
  return part;
}

}  // namespace

NaiveRows naive_rows(const at::Tensor& matrix) {
  const at::Tensor flat = matrix.to(at::kDouble).contiguous();
  NaiveRows rows;
  for (int64_t i = 0; i < flat.size(0); ++i) {
    const double* row = flat.const_data_ptr<double>() + i * flat.size(1);
    rows.emplace_back(row, row + flat.size(1));
  }
  return rows;
}

std::vector<double> naive_attention_scores(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& bias,
                                           const std::string& reduction) {
  const NaiveRows q = naive_rows(queries), k = naive_rows(keys);
  std::vector<double> scores(k.size(), 0.0);
  for (const std::vector<double>& query : q) {
    std::vector<double> logits;
    for (size_t j = 0; j < k.size(); ++j) {
      logits.push_back(dot(query, k[j]) / std::sqrt(static_cast<double>(query.size())) + bias_of(bias, j));
    }
    const std::vector<double> weights = softmax(logits);
    for (size_t j = 0; j < k.size(); ++j) {
      if (reduction == "max") {
        scores[j] = std::max(scores[j], weights[j]);
      } else {
        scores[j] += (reduction == "rms" ? weights[j] * weights[j] : weights[j]) / static_cast<double>(q.size());
      }
    }
  }
  if (reduction == "rms") {
    for (double& score : scores) score = std::sqrt(score);
  }
  return scores;
}

std::vector<double> naive_pooled(const std::vector<double>& scores, int64_t kernel, const std::string& pool) {
  std::vector<double> pooled;
  const auto T = static_cast<int64_t>(scores.size());
  for (int64_t j = 0; j < T; ++j) {
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t i = std::max<int64_t>(0, j - kernel / 2); i <= std::min(T - 1, j + kernel / 2); ++i) {
      largest = std::max(largest, scores[static_cast<size_t>(i)]);
      sum += scores[static_cast<size_t>(i)];
    }
    pooled.push_back(pool == "max" ? largest : sum / static_cast<double>(kernel));
  }
  return pooled;
}

std::vector<double> naive_key_norm(const at::Tensor& keys) {
  std::vector<double> scores;
  for (const std::vector<double>& key : naive_rows(keys)) scores.push_back(-std::sqrt(dot(key, key)));
  return scores;
}

std::vector<double> naive_keydiff(const at::Tensor& keys) {
  const NaiveRows k = naive_rows(keys);
  std::vector<double> anchor(k[0].size(), 0.0);
  for (const std::vector<double>& key : k) {
    for (size_t c = 0; c < key.size(); ++c)
      anchor[c] += key[c] / std::sqrt(dot(key, key)) / static_cast<double>(k.size());
  }
  std::vector<double> scores;
  for (const std::vector<double>& key : k) scores.push_back(-cosine(key, anchor));
  return scores;
}

std::vector<double> naive_expected_attention(const NaiveExpectation& input) {
  const NaiveRows k = naive_rows(input.keys), v = naive_rows(input.values), ahead = mean_rotation(input);
  const auto d = static_cast<double>(k[0].size());
  const auto n_sink = std::min(static_cast<size_t>(input.n_sink), k.size());
  std::vector<double> weights(k.size() - n_sink, 0.0);
  for (int64_t head = 0; head < input.group_size; ++head) {
    Moments moments = moments_before_rotation(input, head);
    moments.mean = product({moments.mean}, transposed(ahead))[0];
    moments.covariance = product(product(ahead, moments.covariance), transposed(ahead));
    std::vector<double> logits;
    for (size_t j = n_sink; j < k.size(); ++j) {
      logits.push_back(dot(moments.mean, k[j]) / std::sqrt(d) + bias_of(input.bias, j));
      if (input.use_covariance) logits.back() += dot(product({k[j]}, moments.covariance)[0], k[j]) / (2 * d);
    }
    const std::vector<double> expected = softmax(logits);
    for (size_t j = 0; j < expected.size(); ++j) weights[j] += expected[j] / static_cast<double>(input.group_size);
  }
  std::vector<double> scores(n_sink, std::numeric_limits<double>::infinity());
  for (size_t j = 0; j < weights.size(); ++j) {
    const std::vector<double>& value = v[n_sink + j];
    scores.push_back((weights[j] + input.epsilon) * (input.use_value_norm ? std::sqrt(dot(value, value)) : 1.0));
  }
  return scores;
}

std::vector<int64_t> naive_heavy_and_recent(const std::vector<double>& scores, int64_t target_len,
                                            double recent_fraction) {
  const auto n_recent = static_cast<int64_t>(std::floor(static_cast<double>(target_len) * recent_fraction));
  const auto n_older = static_cast<int64_t>(scores.size()) - n_recent;
  std::vector<int64_t> order(static_cast<size_t>(n_older));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(target_len - n_recent));
  for (int64_t i = 0; i < n_recent; ++i) order.push_back(n_older + i);
  std::sort(order.begin(), order.end());
  return order;
}

NaiveMerge naive_cam(const at::Tensor& keys, const at::Tensor& values, const std::vector<double>& attention,
                     const std::vector<double>& draws, const std::vector<int64_t>& kept, int64_t n_takers) {
  NaiveRows v = naive_rows(values);
  NaiveMerge merge;
  for (size_t i = 0; i + 1 < v.size(); ++i) {
    if (is_kept(kept, i)) continue;
    const size_t end = std::min(v.size(), i + 1 + static_cast<size_t>(n_takers));
    const auto n_here = static_cast<double>(end - i - 1);
    double mean = 0;
    for (size_t j = i + 1; j < end; ++j) mean += attention[j] / n_here;
    if (draws[i] >= attention[i] / mean) continue;
    ++merge.n_merged;
    for (size_t j = i + 1; j < end; ++j) {
      for (size_t x = 0; x < v[i].size(); ++x) v[j][x] += v[i][x] / n_here;
    }
  }
  merge.keys = chosen(naive_rows(keys), kept);
  merge.values = chosen(v, kept);
  return merge;
}

NaiveMerge naive_d2o(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& bias,
                     const std::vector<int64_t>& kept) {
  const NaiveRows k = naive_rows(keys), v = naive_rows(values);
  struct Candidate {
    size_t entry, into;
    double similarity;
  };
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < k.size(); ++i) {
    if (is_kept(kept, i)) continue;
    Candidate best{i, 0, -2};
    for (size_t c = 0; c < kept.size(); ++c) {
      const double similarity = cosine(k[i], k[static_cast<size_t>(kept[c])]);
      if (similarity > best.similarity) best = {i, c, similarity};
    }
    candidates.push_back(best);
  }
  double threshold = 0;
  for (const Candidate& one : candidates) threshold += one.similarity / static_cast<double>(candidates.size());
  NaiveMerge merge{chosen(k, kept), chosen(v, kept), 0};
  for (size_t c = 0; c < kept.size(); ++c) {
    const auto own_entry = static_cast<size_t>(kept[c]);
    double total = std::exp(1.0);
    for (double& x : merge.keys[c]) x *= std::exp(1.0);
    for (double& x : merge.values[c]) x *= std::exp(1.0);
    for (const Candidate& one : candidates) {
      if (one.into != c || one.similarity < threshold) continue;
      const double weight = std::exp(one.similarity + bias_of(bias, one.entry) - bias_of(bias, own_entry));
      total += weight;
      ++merge.n_merged;
      for (size_t x = 0; x < k[0].size(); ++x) {
        merge.keys[c][x] += weight * k[one.entry][x];
        merge.values[c][x] += weight * v[one.entry][x];
      }
    }
    for (double& x : merge.keys[c]) x /= total;
    for (double& x : merge.values[c]) x /= total;
  }
  return merge;
}

NaiveSets naive_kv_merger(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& bias,
                          const std::vector<double>& attention, const std::vector<int64_t>& kept_apart, size_t n_sets) {
  const NaiveRows k = naive_rows(keys), v = naive_rows(values);
  std::vector<std::vector<size_t>> sets;  // one entry each, then joined pair by pair
  for (size_t i = 0; i < k.size(); ++i) {
    if (!is_kept(kept_apart, i)) sets.push_back({i});
  }
  while (sets.size() > n_sets) {
    size_t best = 0;
    double highest = -2;
    for (size_t s = 0; s + 1 < sets.size(); ++s) {
      const double similarity = cosine(k[sets[s].back()], k[sets[s + 1].front()]);
      if (similarity > highest) {
        highest = similarity;
        best = s;
      }
    }
    sets[best].insert(sets[best].end(), sets[best + 1].begin(), sets[best + 1].end());
    sets.erase(sets.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  std::map<size_t, std::vector<size_t>> by_place;
  for (const int64_t entry : kept_apart) by_place[static_cast<size_t>(entry)] = {static_cast<size_t>(entry)};
  for (const auto& set : sets) {
    size_t pivot = set.front();
    for (const size_t i : set) {
      if (attention[i] > attention[pivot]) pivot = i;
    }
    by_place[pivot] = set;
  }
  NaiveSets merge;
  merge.n_merged = static_cast<int64_t>(k.size() - by_place.size());
  const size_t d = k[0].size();
  for (const auto& [pivot, set] : by_place) {
    const auto distance = [&](size_t i) {
      double sum = 0;
      for (size_t x = 0; x < d; ++x) sum += (k[i][x] - k[pivot][x]) * (k[i][x] - k[pivot][x]);
      return std::sqrt(sum);
    };
    double mean = 0, total = 0;
    for (const size_t i : set) mean += distance(i) / std::max(1.0, static_cast<double>(set.size() - 1));
    std::vector<double> key(d), value(d);
    for (const size_t i : set) {
      const double ratio = mean > 0 ? distance(i) / mean : 0;
      const double weight = std::exp(-ratio * ratio + bias_of(bias, i) - bias_of(bias, pivot));
      total += weight;
      for (size_t x = 0; x < d; ++x) {
        key[x] += weight * k[i][x];
        value[x] += weight * v[i][x];
      }
    }
    for (size_t x = 0; x < d; ++x) {
      key[x] /= total;
      value[x] /= total;
    }
    merge.kept.push_back(static_cast<int64_t>(pivot));
    merge.keys.push_back(key);
    merge.values.push_back(value);
  }
  return merge;
}

}  // namespace kvc
