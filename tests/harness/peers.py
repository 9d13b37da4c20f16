"""TransformerLens on a local model, without a model hub."""

from transformer_lens import HookedTransformer
from transformer_lens import loading_from_pretrained as loading


def hooked_transformer(folder, hf_model, folded=False):
    """The HookedTransformer of a Hugging Face folder, as from_pretrained
    (`folded`) or from_pretrained_no_processing would make it."""
    name = str(folder)
    config = loading.get_pretrained_model_config(name, fold_ln=folded, device="cpu")
    state = loading.get_pretrained_state_dict(name, config, hf_model)
    model = HookedTransformer(config, move_to_device=False)
    model.load_and_process_state_dict(
        state,
        fold_ln=folded,
        center_writing_weights=folded,
        center_unembed=folded,
        fold_value_biases=folded,
    )
    return model.eval()
