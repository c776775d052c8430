"""Dead letters can be replayed, devices fall silent, ingest remembers its sessions at the broker."""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table('dead_letters', schema=None) as batch_op:
        batch_op.alter_column('source', existing_type=sa.String(length=32), type_=sa.String(length=64), existing_nullable=False)
        batch_op.add_column(sa.Column('content_type', sa.String(length=256), server_default='', nullable=False))
        batch_op.add_column(sa.Column('replays', sa.Integer(), server_default='0', nullable=False))
        batch_op.add_column(sa.Column('replayed_at', sa.Float(), nullable=True))
        batch_op.add_column(sa.Column('replayed_by', sa.String(length=64), nullable=True))
    op.create_table('silent_devices',
    sa.Column('tenant', sa.String(length=64), nullable=False),
    sa.Column('device', sa.String(length=64), nullable=False),
    sa.Column('since', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('tenant', 'device', name=op.f('pk_silent_devices'))
    )
    op.create_table('ingest_sessions',
    sa.Column('client_id', sa.String(length=128), nullable=False),
    sa.Column('filters', sa.JSON(), nullable=False),
    sa.Column('is_settled', sa.Boolean(), nullable=False),
    sa.Column('updated_at', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('client_id', name=op.f('pk_ingest_sessions'))
    )


def downgrade() -> None:
    op.drop_table('ingest_sessions')
    op.drop_table('silent_devices')
    with op.batch_alter_table('dead_letters', schema=None) as batch_op:
        batch_op.drop_column('replayed_by')
        batch_op.drop_column('replayed_at')
        batch_op.drop_column('replays')
        batch_op.drop_column('content_type')
        batch_op.alter_column('source', existing_type=sa.String(length=64), type_=sa.String(length=32), existing_nullable=False)
