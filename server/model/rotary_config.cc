#include "server/model/rotary_config.h"

#include <cmath>
#include <numbers>
#include <string>

#include "ATen/ATen.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/model/config_fields.h"
#include "server/model/status_macros.h"

namespace cupola::model {
namespace {

constexpr int64_t kMaxContext = int64_t{1} << 40;

bool IsNested(const Json& parameters) {
  return parameters.is_object() && (parameters.contains("full_attention") ||
                                    parameters.contains("sliding_attention"));
}

// Llama 3's frequencies: long wavelengths are stretched by `factor`, short ones
// kept, those between interpolated (reference: transformers,
// modeling_rope_utils, "llama3"). In float32, operation by operation.
absl::Status ScaleLlama3(ConfigFields& scaling, double factor, int64_t n_ctx,
                         Rotary* rotary) {
  const double low = scaling.PositiveOr({"low_freq_factor"}, 1);
  const double high = scaling.PositiveOr({"high_freq_factor"}, 4);
  const double context = static_cast<double>(
      scaling.SizeOr({"original_max_position_embeddings"}, kMaxContext, n_ctx));
  RETURN_IF_ERROR(scaling.status());
  if (high <= low) {
    return absl::InvalidArgumentError(
        absl::StrCat("rope high_freq_factor ", high,
                     " must be above low_freq_factor ", low));
  }
  for (double& frequency : rotary->inverse_frequencies) {
    const float inverse = static_cast<float>(frequency);
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / inverse;
    const float stretched = inverse / static_cast<float>(factor);
    if (wavelength > static_cast<float>(context / low)) {
      frequency = stretched;
    } else if (wavelength >= static_cast<float>(context / high)) {
      const float smooth =
          (static_cast<float>(context) / wavelength - static_cast<float>(low)) /
          static_cast<float>(high - low);
      frequency = (1 - smooth) * inverse / static_cast<float>(factor) +
                  smooth * inverse;
    }
  }
  return absl::OkStatus();
}

}  // namespace

Rotary PlainRotary(double base, int64_t rotary_dim, bool adjacent_pairs) {
  Rotary rotary;
  rotary.rotary_dim = static_cast<int>(rotary_dim);
  rotary.adjacent_pairs = adjacent_pairs;
  const at::Tensor exponents =
      at::arange(0, rotary_dim, 2, at::kLong).to(at::kFloat) / rotary_dim;
  const at::Tensor inverse = at::pow(base, exponents).reciprocal();
  const float* values = inverse.const_data_ptr<float>();
  rotary.inverse_frequencies.assign(values, values + inverse.numel());
  return rotary;
}

absl::StatusOr<Rotary> ParseRotary(const Json& config, const char* layer_type,
                                   const RotaryDefaults& defaults,
                                   int64_t d_head, int64_t n_ctx,
                                   bool local_is_unscaled) {
  static const Json& empty = *new Json(Json::object());
  ConfigFields outer(config);
  const bool local =
      local_is_unscaled && std::string(layer_type) == "sliding_attention";
  double base =
      outer.PositiveOr({"rope_theta", "rotary_emb_base"}, defaults.base);
  if (local) base = outer.PositiveOr({"rope_local_base_freq"}, defaults.base);
  double fraction = outer.PositiveOr({"rotary_pct", "partial_rotary_factor"},
                                     defaults.fraction);

  // The dictionary that holds the scaling, and in new configs the rest too.
  const Json* parameters = &outer.Value("rope_parameters");
  if (IsNested(*parameters)) {
    parameters =
        parameters->contains(layer_type) ? &(*parameters)[layer_type] : &empty;
  } else if (local) {
    parameters = &empty;
  } else if (parameters->is_null()) {
    parameters = &outer.Value("rope_scaling");
  }
  if (parameters->is_null()) parameters = &empty;
  if (!parameters->is_object()) {
    return absl::InvalidArgumentError(
        "config fields 'rope_parameters' and 'rope_scaling' must be objects");
  }
  ConfigFields inner(*parameters);
  base = inner.PositiveOr({"rope_theta"}, base);
  fraction = inner.PositiveOr({"partial_rotary_factor"}, fraction);
  const std::string type = inner.TextOr({"rope_type", "type"}, "default");
  RETURN_IF_ERROR(outer.status());
  RETURN_IF_ERROR(inner.status());

  const int64_t dim = static_cast<int64_t>(static_cast<double>(d_head) *
                                           std::min(fraction, 2.0));
  if (dim < 2 || dim % 2 != 0 || dim > d_head) {
    return absl::InvalidArgumentError(
        absl::StrCat("rotary dimension ", dim, " (", fraction, " of head size ",
                     d_head, ") must be even and within the head"));
  }
  Rotary rotary = PlainRotary(base, dim, /*adjacent_pairs=*/false);
  if (type == "default") return rotary;
  if (type != "linear" && type != "llama3") {
    return absl::UnimplementedError(
        absl::StrCat("rope scaling '", type,
                     "' is not served; default, linear and llama3 are"));
  }
  const std::optional<double> factor = inner.MaybePositive({"factor"});
  RETURN_IF_ERROR(inner.status());
  if (!factor.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rope scaling '", type, "' needs the field 'factor'"));
  }
  if (type == "llama3") {
    RETURN_IF_ERROR(ScaleLlama3(inner, *factor, n_ctx, &rotary));
    return rotary;
  }
  for (double& frequency : rotary.inverse_frequencies) {
    frequency = static_cast<float>(frequency) / static_cast<float>(*factor);
  }
  return rotary;
}

}  // namespace cupola::model
