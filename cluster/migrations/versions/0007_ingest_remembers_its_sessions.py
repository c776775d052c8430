"""Ingest remembers which sessions the broker keeps for it."""

import sqlalchemy as sa
from alembic import op

revision = '0007'
down_revision = '0006'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('ingest_sessions',
    sa.Column('client_id', sa.String(length=128), nullable=False),
    sa.Column('filters', sa.JSON(), nullable=False),
    sa.Column('is_settled', sa.Boolean(), nullable=False),
    sa.Column('updated_at', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('client_id', name=op.f('pk_ingest_sessions'))
    )


def downgrade() -> None:
    op.drop_table('ingest_sessions')
