"""The evaluation plan, on the int8 C core: P0 perplexity, P1 personalisation, P2 forgetting, P3 cost."""
