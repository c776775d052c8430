"""Create the tables of a floor."""

import sqlalchemy as sa
from alembic import op

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('alerts',
    sa.Column('id', sa.String(length=32), nullable=False),
    sa.Column('tenant', sa.String(length=64), nullable=False),
    sa.Column('device_id', sa.String(length=64), nullable=False),
    sa.Column('client_id', sa.String(length=64), nullable=True),
    sa.Column('site', sa.String(length=128), nullable=True),
    sa.Column('supervisor_id', sa.String(length=64), nullable=True),
    sa.Column('fingerprint', sa.String(length=16), nullable=False),
    sa.Column('occurrence', sa.Integer(), nullable=False),
    sa.Column('source_kind', sa.String(length=16), nullable=False),
    sa.Column('rule', sa.String(length=128), nullable=False),
    sa.Column('model', sa.String(length=64), nullable=True),
    sa.Column('model_version', sa.String(length=128), nullable=True),
    sa.Column('score', sa.Float(), nullable=True),
    sa.Column('threshold', sa.Float(), nullable=True),
    sa.Column('metric', sa.String(length=128), nullable=True),
    sa.Column('severity', sa.String(length=16), nullable=False),
    sa.Column('severity_rank', sa.Integer(), nullable=False),
    sa.Column('condition', sa.String(length=16), nullable=False),
    sa.Column('handling', sa.String(length=16), nullable=False),
    sa.Column('verdict', sa.String(length=16), nullable=True),
    sa.Column('title', sa.String(length=256), nullable=False),
    sa.Column('text', sa.Text(), nullable=False),
    sa.Column('value', sa.Float(), nullable=True),
    sa.Column('count', sa.Integer(), nullable=False),
    sa.Column('labels', sa.JSON(), nullable=False),
    sa.Column('starts_at', sa.Float(), nullable=False),
    sa.Column('last_seen_at', sa.Float(), nullable=False),
    sa.Column('cleared_at', sa.Float(), nullable=True),
    sa.Column('acked_by', sa.String(length=64), nullable=True),
    sa.Column('acked_at', sa.Float(), nullable=True),
    sa.Column('closed_by', sa.String(length=64), nullable=True),
    sa.Column('closed_at', sa.Float(), nullable=True),
    sa.Column('verdict_by', sa.String(length=64), nullable=True),
    sa.Column('verdict_at', sa.Float(), nullable=True),
    sa.Column('recorded_at', sa.String(length=40), nullable=True),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('evidence', sa.JSON(), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_alerts')),
    sa.UniqueConstraint('fingerprint', 'occurrence', name=op.f('uq_alerts_fingerprint'))
    )
    with op.batch_alter_table('alerts', schema=None) as batch_op:
        batch_op.create_index('ix_alerts_device', ['tenant', 'device_id', 'id'], unique=False)
        batch_op.create_index('ix_alerts_handling_id', ['handling', 'id'], unique=False)
        batch_op.create_index('ix_alerts_handling_worst', ['handling', 'severity_rank', 'id'], unique=False)
        batch_op.create_index('ix_alerts_worst', ['severity_rank', 'id'], unique=False)

    op.create_table('dead_letters',
    sa.Column('id', sa.Integer(), autoincrement=True, nullable=False),
    sa.Column('at', sa.Float(), nullable=False),
    sa.Column('last_at', sa.Float(), nullable=False),
    sa.Column('count', sa.Integer(), nullable=False),
    sa.Column('topic', sa.String(length=512), nullable=False),
    sa.Column('reason', sa.String(length=32), nullable=False),
    sa.Column('detail', sa.String(length=256), nullable=False),
    sa.Column('payload', sa.LargeBinary(), nullable=False),
    sa.Column('payload_bytes', sa.Integer(), nullable=False),
    sa.Column('sha256', sa.String(length=64), nullable=False),
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('source', sa.String(length=32), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_dead_letters')),
    sa.UniqueConstraint('key', name=op.f('uq_dead_letters_key'))
    )
    with op.batch_alter_table('dead_letters', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_dead_letters_last_at'), ['last_at'], unique=False)

    op.create_table('devices',
    sa.Column('tenant', sa.String(length=64), nullable=False),
    sa.Column('device', sa.String(length=64), nullable=False),
    sa.Column('client_id', sa.String(length=64), nullable=True),
    sa.Column('site', sa.String(length=128), nullable=True),
    sa.Column('supervisor_id', sa.String(length=64), nullable=True),
    sa.Column('first_seen_at', sa.Float(), nullable=True),
    sa.Column('last_seen_at', sa.Float(), nullable=True),
    sa.Column('online', sa.Boolean(), nullable=True),
    sa.Column('known', sa.Boolean(), nullable=False),
    sa.PrimaryKeyConstraint('tenant', 'device', name=op.f('pk_devices'))
    )
    op.create_table('live_models',
    sa.Column('alias', sa.String(length=32), nullable=False),
    sa.Column('scorer', sa.String(length=64), nullable=False),
    sa.Column('version', sa.String(length=128), nullable=False),
    sa.Column('uri', sa.String(length=1024), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.Column('updated_at', sa.Float(), nullable=False),
    sa.PrimaryKeyConstraint('alias', name=op.f('pk_live_models'))
    )
    op.create_table('model_journal',
    sa.Column('id', sa.String(length=26), nullable=False),
    sa.Column('at', sa.Float(), nullable=False),
    sa.Column('alias', sa.String(length=32), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.Column('model_type', sa.String(length=64), nullable=False),
    sa.Column('version', sa.String(length=128), nullable=False),
    sa.Column('uri', sa.String(length=1024), nullable=False),
    sa.Column('replaced_version', sa.String(length=128), nullable=True),
    sa.Column('run_id', sa.String(length=64), nullable=False),
    sa.Column('user_id', sa.String(length=128), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('metrics', sa.JSON(), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_model_journal'))
    )
    op.create_table('runs',
    sa.Column('id', sa.String(length=64), nullable=False),
    sa.Column('task', sa.String(length=64), nullable=False),
    sa.Column('model_type', sa.String(length=64), nullable=False),
    sa.Column('dataset_id', sa.String(length=256), nullable=False),
    sa.Column('lane', sa.String(length=32), nullable=False),
    sa.Column('priority', sa.Integer(), nullable=False),
    sa.Column('resources', sa.JSON(), nullable=False),
    sa.Column('arguments', sa.JSON(), nullable=False),
    sa.Column('user_id', sa.String(length=128), nullable=False),
    sa.Column('tenant', sa.String(length=64), nullable=True),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('progress', sa.Float(), nullable=False),
    sa.Column('message', sa.Text(), nullable=False),
    sa.Column('submission_id', sa.String(length=128), nullable=False),
    sa.Column('origin', sa.String(length=8), nullable=False),
    sa.Column('waits_for', sa.Text(), nullable=True),
    sa.Column('result', sa.JSON(), nullable=False),
    sa.Column('created_at', sa.Float(), nullable=False),
    sa.Column('launched_at', sa.Float(), nullable=True),
    sa.Column('leased_at', sa.Float(), nullable=True),
    sa.Column('started_at', sa.Float(), nullable=True),
    sa.Column('ended_at', sa.Float(), nullable=True),
    sa.Column('soft_limit_s', sa.Float(), nullable=False),
    sa.Column('hard_limit_s', sa.Float(), nullable=False),
    sa.Column('stop_state', sa.String(length=16), nullable=True),
    sa.Column('stop_reason', sa.Text(), nullable=False),
    sa.Column('version', sa.Integer(), nullable=False),
    sa.Column('request_id', sa.String(length=128), nullable=True),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_runs')),
    sa.UniqueConstraint('submission_id', name=op.f('uq_runs_submission_id')),
    sa.UniqueConstraint('user_id', 'request_id', name=op.f('uq_runs_user_id'))
    )
    with op.batch_alter_table('runs', schema=None) as batch_op:
        batch_op.create_index('ix_runs_created_at', ['created_at'], unique=False)
        batch_op.create_index('ix_runs_state_created_at', ['state', 'created_at'], unique=False)

    op.create_table('alert_events',
    sa.Column('id', sa.String(length=32), nullable=False),
    sa.Column('alert_id', sa.String(length=32), nullable=False),
    sa.Column('seq', sa.Integer(), nullable=False),
    sa.Column('at', sa.Float(), nullable=False),
    sa.Column('actor', sa.String(length=64), nullable=False),
    sa.Column('action', sa.String(length=32), nullable=False),
    sa.Column('from_', sa.String(length=64), nullable=True),
    sa.Column('to', sa.String(length=64), nullable=False),
    sa.Column('reason', sa.Text(), nullable=True),
    sa.Column('request_id', sa.String(length=64), nullable=True),
    sa.Column('reading_key', sa.String(length=320), nullable=True),
    sa.Column('data', sa.JSON(), nullable=False),
    sa.Column('broadcast_at', sa.Float(), nullable=True),
    sa.ForeignKeyConstraint(['alert_id'], ['alerts.id'], name=op.f('fk_alert_events_alert_id_alerts')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_alert_events')),
    sa.UniqueConstraint('alert_id', 'seq', name=op.f('uq_alert_events_alert_id')),
    sa.UniqueConstraint('reading_key', name=op.f('uq_alert_events_reading_key')),
    sa.UniqueConstraint('request_id', 'alert_id', name=op.f('uq_alert_events_request_id'))
    )
    with op.batch_alter_table('alert_events', schema=None) as batch_op:
        batch_op.create_index('ix_alert_events_pending', ['id'], unique=False, sqlite_where=sa.text('broadcast_at IS NULL'), postgresql_where=sa.text('broadcast_at IS NULL'))



def downgrade() -> None:
    with op.batch_alter_table('alert_events', schema=None) as batch_op:
        batch_op.drop_index('ix_alert_events_pending', sqlite_where=sa.text('broadcast_at IS NULL'), postgresql_where=sa.text('broadcast_at IS NULL'))

    op.drop_table('alert_events')
    with op.batch_alter_table('runs', schema=None) as batch_op:
        batch_op.drop_index('ix_runs_state_created_at')
        batch_op.drop_index('ix_runs_created_at')

    op.drop_table('runs')
    op.drop_table('model_journal')
    op.drop_table('live_models')
    op.drop_table('devices')
    with op.batch_alter_table('dead_letters', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_dead_letters_last_at'))

    op.drop_table('dead_letters')
    with op.batch_alter_table('alerts', schema=None) as batch_op:
        batch_op.drop_index('ix_alerts_worst')
        batch_op.drop_index('ix_alerts_handling_worst')
        batch_op.drop_index('ix_alerts_handling_id')
        batch_op.drop_index('ix_alerts_device')

    op.drop_table('alerts')
