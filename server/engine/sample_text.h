#ifndef CUPOLA_SERVER_ENGINE_SAMPLE_TEXT_H_
#define CUPOLA_SERVER_ENGINE_SAMPLE_TEXT_H_

#include <string>
#include <vector>

namespace cupola::engine {

// Some paragraphs of plain prose, a list, a little code and arithmetic: what
// dictionaries are measured on when they are loaded. About 1,000 tokens.
// Changing it changes every measurement.
const std::vector<std::string>& SampleTexts();

}  // namespace cupola::engine

#endif  // CUPOLA_SERVER_ENGINE_SAMPLE_TEXT_H_
