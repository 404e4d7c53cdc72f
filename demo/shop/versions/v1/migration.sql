-- v1: orders with their amount in cents, and the parcels that were sent.
CREATE TABLE orders (
    id bigserial PRIMARY KEY,
    token text NOT NULL UNIQUE,
    item text NOT NULL,
    amount bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE shipments (
    order_id bigint PRIMARY KEY,
    shipped_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO orders (token, item, amount) VALUES ('opening-day', 'teapot', 2490)
