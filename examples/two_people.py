"""Trains a policy for a minute on one core, and tells two new people apart: `python -m examples.two_people`.

It needs pandas. `FSPOTrainer` reads like a TRL trainer and takes a table in memory, such as a DataFrame. A second run
loads the trained policy from `runs/views`.
"""

import pandas as pd

from fspo import FSPOConfig, FSPOTrainer, LoraSettings

__all__ = ["trainer", "views"]

BRIEF, LIVELY = "Yes, {}.", "Oh, {} is pure joy!"


def views(user: str, likes: str, dislikes: str, topics: list[str]) -> pd.DataFrame:
    """Preferences of one person; in place of it pd.read_csv, since all it takes is these four columns."""
    rows = [(user, f"Should I try {topic}?", likes.format(topic), dislikes.format(topic)) for topic in topics]
    return pd.DataFrame(rows, columns=["user", "prompt", "chosen", "rejected"])


topics = ["chess", "opera", "yoga", "jazz"]
trainer = FSPOTrainer(
    model="smollm2-135m",
    args=FSPOConfig(
        output_dir="runs/views",
        loss_type="ipo",
        beta=0.1,
        max_steps=4,
        learning_rate=1e-3,
        warmup=0,
        shots=2,
        queries=2,
        users_per_step=1,
        mirror=True,
    ),
    train_dataset=pd.concat([views("ann", BRIEF, LIVELY, topics), views("ben", LIVELY, BRIEF, topics)]),
    peft_config=LoraSettings(last_layers=10),  # or a LoraConfig of peft
)
trainer.train()

# Two people who are not in the training data, each with two preferences: which answer would each of them prefer?
# For eve the first reward is higher, for max the second.
answers = ["Yes, golf.", "Oh, golf is pure joy!"]
for person in (views("eve", BRIEF, LIVELY, ["sushi", "poker"]), views("max", LIVELY, BRIEF, ["sushi", "poker"])):
    print(trainer.reward(person, "Should I try golf?", answers))
print(trainer.generate(person, "Should I try golf?", max_new_tokens=16, guidance=1.0))
