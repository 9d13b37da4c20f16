#ifndef CUPOLA_SERVER_ANALYSIS_CURVE_CLASS_H_
#define CUPOLA_SERVER_ANALYSIS_CURVE_CLASS_H_

#include "ATen/ATen.h"

namespace cupola::analysis {

enum class CurveKind {
  kLinear = 0,    // a line, never 0
  kJumpRelu = 1,  // a line outside a zero region
  kOther = 2,
};

// How curves look, [s] each, float64 but `kind` (int32). The zero region goes
// from the first point where the curve is 0 to the last one, whatever lies
// between (as published), and the line is the least-squares one through all
// points outside: of no point at all 0, of one point the shortest (slope,
// intercept) that meets it.
struct CurveFits {
  at::Tensor kind;  // CurveKind
  at::Tensor slope, intercept;
  at::Tensor zero_first, zero_last;  // in t; NaN where the curve is never 0
};

// t, y: [s, n], any float type. A line fits when every residual outside is
// below `tolerance`. `published`: a line without a zero region also counts as
// kJumpRelu, as in the first published definition.
CurveFits ClassifyCurves(const at::Tensor& t, const at::Tensor& y,
                         double tolerance, bool published);

}  // namespace cupola::analysis

#endif  // CUPOLA_SERVER_ANALYSIS_CURVE_CLASS_H_
