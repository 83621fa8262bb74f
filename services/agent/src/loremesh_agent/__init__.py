"""Chat over the documents: conversations, prompts, models, cited answers."""
