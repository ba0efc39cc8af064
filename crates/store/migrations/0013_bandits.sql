-- What bandits have learnt: the weights of a deployment's versions rest on it.

CREATE TABLE bandit_arms (
    deployment TEXT NOT NULL,
    version INTEGER NOT NULL,
    successes REAL NOT NULL,           -- the sum of its outcomes, each from 0 to 1
    failures REAL NOT NULL,            -- the sum of what they lacked to 1
    outcomes INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (deployment, version)
) WITHOUT ROWID;

-- Outcomes that were told by the id of a prediction, so that each counts once.
CREATE TABLE bandit_outcomes (
    deployment TEXT NOT NULL,
    prediction_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    outcome REAL NOT NULL,
    told_at INTEGER NOT NULL,
    PRIMARY KEY (deployment, prediction_id)
) WITHOUT ROWID;
