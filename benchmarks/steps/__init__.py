"""The data set `steps` of `configs/bench_steps.yaml`: its stories, its teacher, its samples.

    python -m benchmarks.steps     writes data/steps

`stories` makes questions and lessons. `teacher/` is the LoRA adapter that taught SmolLM2 such
stories, and `samples/` is what it wrote about the training questions.
"""
