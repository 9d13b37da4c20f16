#include "tests/dictionary/naive_dictionary.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "absl/strings/match.h"

namespace cupola::dictionary::testing {
namespace {

double Norm(const Vector& x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
}

double Mean(const Vector& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / x.size();
}

double UnbiasedStd(const Vector& x) {
  double sum = 0;
  for (double v : x) sum += (v - Mean(x)) * (v - Mean(x));
  return std::sqrt(sum / (x.size() - 1));
}

}  // namespace

double NaiveDictionary::At(const char* name, int64_t i) const {
  return tensors_.at(name)[i].item<double>();
}

double NaiveDictionary::At(const char* name, int64_t i, int64_t j) const {
  const at::Tensor& t = tensors_.at(name);
  return t.const_data_ptr<float>()[i * t.size(1) + j];
}

double NaiveDictionary::RowNorm(int64_t latent) const {
  double sum = 0;
  for (int64_t j = 0; j < tensors_.at("W_dec").size(1); ++j) {
    sum += At("W_dec", latent, j) * At("W_dec", latent, j);
  }
  return std::sqrt(sum);
}

Vector NaiveDictionary::Normalize(const Vector& x) const {
  const std::string how = cfg_["normalize_activations"];
  Vector result = x;
  if (how == "constant_norm_rescale") {
    for (double& v : result) v *= std::sqrt(x.size()) / Norm(x);
  } else if (how == "layer_norm") {
    for (double& v : result) v = (v - Mean(x)) / (UnbiasedStd(x) + 1e-5);
  }
  if (cfg_["apply_b_dec_to_input"] == true) {
    for (size_t i = 0; i < x.size(); ++i) result[i] -= At("b_dec", i);
  }
  return result;
}

Vector NaiveDictionary::Pursue(Vector residual) const {
  const int64_t d_sae = cfg_["d_sae"];
  Vector acts(d_sae, 0.0);
  for (size_t round = 0; round < residual.size(); ++round) {
    double best = 0;
    int64_t atom = 0;
    for (int64_t f = 0; f < d_sae; ++f) {
      double product = 0;
      for (size_t i = 0; i < residual.size(); ++i) {
        product += residual[i] * At("W_dec", f, i);
      }
      if (product > best) {
        best = product;
        atom = f;
      }
    }
    const bool again = best == 0 || acts[atom] != 0;
    acts[atom] += best;
    for (size_t i = 0; i < residual.size(); ++i) {
      residual[i] -= best * At("W_dec", atom, i);
    }
    if (again || Norm(residual) < cfg_.value("residual_threshold", 1e-2)) break;
  }
  return acts;
}

Vector NaiveDictionary::Encode(const Vector& x) const {
  const Vector input = Normalize(x);
  const std::string architecture = cfg_["architecture"];
  if (architecture == "matching_pursuit") return Pursue(input);
  const int64_t d_sae = cfg_["d_sae"];
  Vector acts(d_sae);
  for (int64_t f = 0; f < d_sae; ++f) {
    double z = 0;
    for (size_t i = 0; i < input.size(); ++i) z += input[i] * At("W_enc", i, f);
    if (architecture == "gated") {
      const bool open = z + At("b_gate", f) > 0;
      const double magnitude = z * std::exp(At("r_mag", f)) + At("b_mag", f);
      acts[f] = open ? std::max(magnitude, 0.0) : 0;
      continue;
    }
    acts[f] = z + At("b_enc", f);
    if (absl::StartsWith(architecture, "jumprelu") &&
        acts[f] <= At("threshold", f)) {
      acts[f] = 0;
    }
    if (cfg_.value("rescale_acts_by_decoder_norm", false))
      acts[f] *= RowNorm(f);
  }
  if (absl::StartsWith(architecture, "topk")) {
    std::vector<int64_t> order(d_sae);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return acts[a] > acts[b]; });
    for (int64_t i = cfg_["k"]; i < d_sae; ++i) acts[order[i]] = 0;
  }
  for (double& v : acts) v = std::max(v, 0.0);
  return acts;
}

Vector NaiveDictionary::Decode(const Vector& acts, const Vector& x) const {
  const int64_t d_out = tensors_.at("W_dec").size(1);
  const std::string architecture = cfg_["architecture"];
  const bool adds_bias = architecture != "matching_pursuit" ||
                         cfg_["apply_b_dec_to_input"] == true;
  Vector out(d_out);
  for (int64_t j = 0; j < d_out; ++j) {
    if (adds_bias) out[j] = At("b_dec", j);
    for (size_t f = 0; f < acts.size(); ++f) {
      if (acts[f] == 0) continue;
      const bool rescaled = cfg_.value("rescale_acts_by_decoder_norm", false);
      out[j] += acts[f] / (rescaled ? RowNorm(f) : 1.0) * At("W_dec", f, j);
    }
  }
  if (absl::EndsWith(architecture, "transcoder")) {
    for (int64_t j = 0; j < d_out && tensors_.count("W_skip"); ++j) {
      for (size_t i = 0; i < x.size(); ++i) out[j] += At("W_skip", j, i) * x[i];
    }
    return out;
  }
  const std::string how = cfg_["normalize_activations"];
  for (double& v : out) {
    if (how == "constant_norm_rescale") v *= Norm(x) / std::sqrt(x.size());
    if (how == "layer_norm") v = v * UnbiasedStd(x) + Mean(x);
  }
  return out;
}

}  // namespace cupola::dictionary::testing
