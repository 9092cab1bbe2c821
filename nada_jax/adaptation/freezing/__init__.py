"""Which layers train. `table` has the strategies and the section of the config, one file a family defines them
(`fixed`, `adaptive`, `style_space`, `low_rank`), `strategy` says what a strategy is, `optimizer` trains by labels."""
