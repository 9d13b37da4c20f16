#include "server/service/generate_conversion.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model/status_macros.h"
#include "server/service/answer_conversion.h"
#include "server/service/prompt_conversion.h"
#include "server/service/run_conversion.h"

namespace cupola::service {
namespace {

void Fill(engine::GeneratedPiece::Choice plain,
          v1::GenerateResponse::Choice* choice) {
  choice->set_id(plain.token);
  choice->set_piece(std::move(plain.piece));
  choice->set_logprob(plain.logprob);
}

}  // namespace

absl::StatusOr<engine::GenerateRequest> FromProto(v1::GenerateRequest request) {
  engine::GenerateRequest plain;
  RETURN_IF_ERROR(CheckName(request.model(), "model"));
  plain.model = std::move(*request.mutable_model());
  ASSIGN_OR_RETURN(plain.prompts, TakePrompts(request.mutable_prompts()));
  const size_t prompts = plain.prompts.prompts.size();
  for (int i = 0; i < request.interventions_size(); ++i) {
    ASSIGN_OR_RETURN(engine::InterventionRequest intervention,
                     TakeIntervention(request.mutable_interventions(i), prompts,
                                      absl::StrCat("interventions[", i, "]")));
    plain.interventions.push_back(std::move(intervention));
  }
  ASSIGN_OR_RETURN(plain.processing,
                   ProcessingFromProto(request.processing(), "processing"));
  plain.max_new_tokens = request.max_new_tokens();
  plain.sampling.temperature = request.temperature();
  plain.sampling.top_k = request.top_k();
  if (request.has_top_p()) plain.sampling.top_p = request.top_p();
  plain.seed = request.seed();
  if (request.has_samples()) plain.samples = request.samples();
  if (request.has_stop()) {
    plain.stop.emplace(request.stop().ids().begin(),
                       request.stop().ids().end());
  }
  plain.top_logprobs = request.top_logprobs();
  if (plain.samples < 1) {
    return absl::InvalidArgumentError("samples is 0; accepted: at least 1");
  }
  return plain;
}

void ToProto(engine::GeneratedPiece piece, v1::GenerateResponse::Token* token) {
  token->set_prompt(static_cast<uint32_t>(piece.prompt));
  token->set_sample(static_cast<uint32_t>(piece.sample));
  Fill(std::move(piece.chosen), token->mutable_chosen());
  for (engine::GeneratedPiece::Choice& choice : piece.top) {
    Fill(std::move(choice), token->add_top());
  }
}

v1::GenerateResponse ToProto(engine::GenerateAnswer answer,
                             double total_seconds) {
  v1::GenerateResponse response;
  v1::GenerateResponse::End* end = response.mutable_end();
  for (std::vector<engine::GenerateAnswer::Text>& samples : answer.texts) {
    v1::GenerateResponse::Prompt* prompt = end->add_prompts();
    for (engine::GenerateAnswer::Text& plain : samples) {
      v1::GenerateResponse::Text* text = prompt->add_samples();
      text->set_tokens(static_cast<uint32_t>(plain.tokens));
      text->set_finish(static_cast<v1::GenerateResponse::Finish>(plain.finish));
      text->set_text(std::move(plain.text));
    }
  }
  FillProvenance(answer.provenance, total_seconds, {},
                 end->mutable_provenance());
  return response;
}

}  // namespace cupola::service
