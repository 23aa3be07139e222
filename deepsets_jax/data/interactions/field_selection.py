"""Which fields of users and items a model is given, and the ids of items."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from deepsets_jax.data.interactions.histories import Histories
from deepsets_jax.data.tables.schema import Modality, Schema
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import DataError
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
  """The histories with what a model is given of users and items.

  Args:
    histories: With all fields.
    popularity: Training events of each item.
    user_fields: Of users; None for all.
    item_fields: Of items; None for all.
    id_events: See `with_ids`; None for no ids.

  Raises:
    DataError: No such field, or nothing at all is given of items.
  """
  items = chosen(histories.items, item_fields, "item_fields")
  if id_events is not None:
    items = with_ids(items, popularity, id_events)
  if not items.modalities:
    raise DataError(
      "config.data.histories: no item_fields and no ids, so that all items are one;"
      " name fields, or set id_events"
    )
  users = chosen(histories.users, user_fields, "user_fields")
  return dataclasses.replace(histories, users=users, items=items)


def chosen(table: Table, names: Sequence[str] | None, where: str) -> Table:
  """The table with these fields alone; None for all.

  Raises:
    DataError: No such field.
  """
  if names is None:
    return table
  unknown = sorted(set(names) - set(table.modalities))
  if unknown:
    raise DataError(
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
  """The items with ID, a token of its own for each that has so many training events.

  Of others it is absent: an embedding that nothing has trained says nothing, and what
  is known of the item speaks alone.

  Args:
    items: All items.
    popularity: Training events of each.
    id_events: Events that it takes.

  Raises:
    DataError: The items have a field of that name.
  """
  if ID in items.modalities:
    raise DataError(
      f"the items have a field {ID!r}, as the modality of ids is called: leave it out"
      " of config.data.histories.item_fields, or call it something else"
    )
  has_id = popularity >= id_events
  ids = from_lengths(np.flatnonzero(has_id).astype(np.int32), has_id)
  modality = Modality("tokens", len(items))
  return dataclasses.replace(
    items,
    schema=Schema({ID: modality, **items.schema.modalities}, items.schema.target),
    modalities={ID: ids, **items.modalities},
  )
