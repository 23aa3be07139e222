"""Selection of the fields of users and items, and the ids of items as a modality."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from deepsets_jax.data.interactions.histories import Histories
from deepsets_jax.data.tables.schema import Modality, Schema
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import from_lengths

ID = "id"


def select_fields(
  histories: Histories,
  popularity: np.ndarray,
  *,
  user_fields: Sequence[str] | None,
  item_fields: Sequence[str] | None,
  id_events: int | None,
) -> Histories:
  """Selects the fields of users and items that a model receives.

  Args:
    histories: The histories with all fields.
    popularity: Number of training events of each item.
    user_fields: The fields of users; None for all.
    item_fields: The fields of items; None for all.
    id_events: See `with_ids`; None for no ids.

  Raises:
    ConfigError: A field does not exist, or items have neither fields nor ids.
  """
  items = _select(histories.items, item_fields, "item_fields")
  if id_events is not None:
    items = with_ids(items, popularity, id_events)
  if not items.modalities:
    raise ConfigError(
      "config.data.histories: with no item_fields and no ids, all items are alike;"
      " name fields, or set id_events"
    )
  users = _select(histories.users, user_fields, "user_fields")
  return dataclasses.replace(histories, users=users, items=items)


def _select(table: Table, names: Sequence[str] | None, where: str) -> Table:
  """The table with these fields only; None for all. `where` names the setting."""
  if names is None:
    return table
  unknown = sorted(set(names) - set(table.modalities))
  if unknown:
    raise ConfigError(
      f"config.data.histories.{where}: no field {unknown[0]!r}; there are"
      f" {sorted(table.modalities)}"
    )
  kept = {name: table.schema.modalities[name] for name in names}
  return dataclasses.replace(
    table,
    schema=Schema(kept, table.schema.target),
    modalities={name: table.modalities[name] for name in names},
  )


def with_ids(items: Table, popularity: np.ndarray, id_events: int) -> Table:
  """Adds the modality ID: a token of its own for each item with enough training events.

  It is absent from the other items: an untrained embedding has no information, so they
  are represented by their fields alone.

  Args:
    items: All items.
    popularity: Number of training events of each item.
    id_events: Number of training events from which on an item has an id.

  Raises:
    ConfigError: The items have a field of that name.
  """
  if ID in items.modalities:
    raise ConfigError(
      f"the items have a field {ID!r}, the name of the modality of ids: leave it out of"
      " config.data.histories.item_fields, or rename it"
    )
  has_id = popularity >= id_events
  ids = from_lengths(np.flatnonzero(has_id).astype(np.int32), has_id)
  modality = Modality("tokens", len(items))
  return dataclasses.replace(
    items,
    schema=Schema({ID: modality, **items.schema.modalities}, items.schema.target),
    modalities={ID: ids, **items.modalities},
  )
