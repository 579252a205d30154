"""Databases that can hold signatures, and models whose configurations are near to each other."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from motoolsd.core.inputs import Inputs, inputs_of_question
from motoolsd.store.nearest import SIGNATURE_STATEMENTS
from motoolsd.wire.keys import Kind, model_key

Config = dict[str, Any]


def prepare_signing(database: str | Path) -> None:
    """Add what a schema lacks of what signatures need."""
    with closing(sqlite3.connect(database)) as connection:
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        for statement in SIGNATURE_STATEMENTS:
            _, _, name, *_ = statement.split()
            if name not in there:
                connection.execute(statement)
        connection.commit()


def model_question(config: Config, dataset_hash: str = "d") -> Inputs:
    """What a lookup of a model asks for."""
    return inputs_of_question(Kind.MODEL, {"dataset_hash": dataset_hash, "backend_type": "openai", "config": config})


def key_of_model(config: Config, dataset_hash: str = "d") -> str:
    """Its key."""
    return model_key(dataset_hash, json.dumps(config, sort_keys=True), "openai")


def random_config(generator: random.Random) -> Config:
    """A configuration unlike others."""
    return {
        "hyperparameters": {"epochs": generator.randrange(10**6), "lr": generator.random(), "seed": generator.random()},
        "layers": [generator.randrange(10**6) for _ in range(3)],
        "name": f"run {generator.random()}",
        "nested": {"a.b": generator.random(), "flag": True, "none": None},
    }


def changed(config: Config, count: int, generator: random.Random) -> Config:
    """The same with so many leaves of another value."""
    other: Config = json.loads(json.dumps(config))
    for path in generator.sample(["epochs", "lr", "seed", "name"], count):
        place = other["hyperparameters"] if path != "name" else other
        place[path] = f"changed {generator.random()}"
    return other
