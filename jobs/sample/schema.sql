-- The database `sample` that report.rhai reads: two years of orders of a small shop, the same on every machine.
-- Money is in cents, so that sums are exact.

CREATE TABLE products (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    unit_cents INTEGER NOT NULL CHECK (unit_cents > 0)
);

CREATE TABLE orders (
    id         INTEGER PRIMARY KEY,
    ordered_on TEXT    NOT NULL CHECK (date(ordered_on) IS ordered_on),
    region     TEXT    NOT NULL,
    product_id INTEGER NOT NULL REFERENCES products (id),
    quantity   INTEGER NOT NULL CHECK (quantity > 0),
    -- The price at the time of the order.
    unit_cents INTEGER NOT NULL CHECK (unit_cents > 0)
);
CREATE INDEX orders_by_day ON orders (ordered_on);

INSERT INTO products (id, name, unit_cents) VALUES
    (1, 'Desk lamp',          3490),
    (2, 'Notebook, A5',        790),
    (3, 'Office chair',      24900),
    (4, 'Standing desk',     54900),
    (5, 'Whiteboard, 90×60',  8450);

-- One order for each step of a linear congruential generator; its high digits decide region, product and quantity.
-- 600 orders over the 730 days of 2025 and 2026.
INSERT INTO orders (id, ordered_on, region, product_id, quantity, unit_cents)
WITH RECURSIVE draw (n, seed) AS (
    SELECT 1, 20250101
    UNION ALL
    SELECT n + 1, (seed * 1103515245 + 12345) % 2147483648 FROM draw WHERE n < 600
),
choice AS (
    SELECT
        n,
        date('2025-01-01', '+' || ((n - 1) * 730 / 600) || ' days')      AS ordered_on,
        CASE WHEN seed / 65536 % 10 < 4 THEN 'North'
             WHEN seed / 65536 % 10 < 7 THEN 'South'
             WHEN seed / 65536 % 10 < 9 THEN 'West'
             ELSE 'East' END                                             AS region,
        seed / 1048576 % 5 + 1                                           AS product_id,
        seed / 8388608 % 7 + 1                                           AS quantity
    FROM draw
)
SELECT
    n, ordered_on, region, product_id,
    -- Nobody buys seven standing desks at once.
    CASE WHEN product_id >= 3 THEN (quantity + 2) / 3 ELSE quantity END,
    -- Prices rose by five percent in 2026.
    CASE WHEN ordered_on < '2026-01-01' THEN unit_cents ELSE unit_cents * 105 / 100 END
FROM choice JOIN products ON products.id = product_id
ORDER BY n;
