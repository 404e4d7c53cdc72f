-- v2: the tax in every order, past ones included.
ALTER TABLE orders ADD COLUMN tax bigint GENERATED ALWAYS AS (amount * 19 / 119) STORED;
CREATE INDEX orders_by_day ON orders (created_at)
