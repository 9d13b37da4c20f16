#include "server/analysis/curve_class.h"

#include <limits>

namespace cupola::analysis {

CurveFits ClassifyCurves(const at::Tensor& t, const at::Tensor& y,
                         double tolerance, bool published) {
  const at::Tensor time = t.to(at::kDouble), value = y.to(at::kDouble);
  const int64_t n = value.size(1);
  const at::Tensor zero = value.eq(0);
  const at::Tensor any = zero.any(1);
  const at::Tensor place = at::arange(n, zero.options().dtype(at::kLong));
  const at::Tensor first = at::where(zero, place, n).amin(1, /*keepdim=*/true);
  const at::Tensor last = at::where(zero, place, -1).amax(1, /*keepdim=*/true);
  const at::Tensor outside = (place.lt(first) | place.gt(last)).to(at::kDouble);

  const at::Tensor count = outside.sum(1);
  const at::Tensor safe = count.clamp_min(1);
  const at::Tensor mean_t = (time * outside).sum(1) / safe;
  const at::Tensor mean_y = (value * outside).sum(1) / safe;
  const at::Tensor dt = (time - mean_t.unsqueeze(1)) * outside;
  const at::Tensor dy = (value - mean_y.unsqueeze(1)) * outside;
  const at::Tensor variance = (dt * dt).sum(1);
  // Points that differ in t determine the line; else the shortest solution.
  const at::Tensor flat = variance.eq(0);
  const at::Tensor shortest = mean_t * mean_t + 1;
  CurveFits fits;
  fits.slope = at::where(flat, mean_t * mean_y / shortest,
                         (dt * dy).sum(1) / at::where(flat, 1.0, variance));
  fits.intercept =
      at::where(flat, mean_y / shortest, mean_y - fits.slope * mean_t);

  const at::Tensor line =
      time * fits.slope.unsqueeze(1) + fits.intercept.unsqueeze(1);
  const at::Tensor residual = ((value - line) * outside).abs();
  const at::Tensor fitting = residual.lt(tolerance).all(1);
  const at::Tensor line_kind = at::where(any, 1, published ? 1 : 0);
  fits.kind = at::where(fitting, line_kind, 2).to(at::kInt);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto at_place = [&](const at::Tensor& index) {
    return at::where(any, time.gather(1, index.clamp(0, n - 1)).squeeze(1),
                     nan);
  };
  fits.zero_first = at_place(first);
  fits.zero_last = at_place(last);
  return fits;
}

}  // namespace cupola::analysis
