"""The paper's recipe, stage by stage: questions, responses, users, labels, checks; for any domain folder."""
