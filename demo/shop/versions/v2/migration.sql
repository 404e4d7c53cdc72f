-- v2: the tax in every order, past ones included.
ALTER TABLE orders ADD COLUMN tax bigint NOT NULL DEFAULT 0;
UPDATE orders SET tax = amount * 19 / 119;
CREATE INDEX orders_by_day ON orders (created_at)
